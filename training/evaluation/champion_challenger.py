"""A new model and the live release, asked the same of the same day."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.release.gate import Gate
from index.release.manifest import Manifest
from index.retrieval.retriever import Query, Retriever
from training.data.interactions import Interactions
from training.evaluation.evaluate import CUTOFFS, measured
from training.evaluation.holdout_day import Asked
from training.nightly.config import NightConfig

# The splits of a manifest's metrics that are a held-out day's: metrics, and leads over popularity.
NIGHT, LEAD = "night", "night_lead"
_BATCH = 256
_NOWHERE = -1  # the position of an item that the window does not have


@dataclass(frozen=True)
class Judgement:
    """Metrics of a day, means over its users: of the new model, the live release, popularity.

    errors: of each metric, the standard error of the difference between new and live.
    new_lead, live_lead: how far the model is ahead of popularity, as to the items that it knows:
    what it has learnt of people, whatever is new. lead_errors: the standard errors of live's.
    """

    users: int
    new: dict[str, float]
    new_lead: dict[str, float]
    popular: dict[str, float]
    live: dict[str, float] | None = None
    live_lead: dict[str, float] | None = None
    errors: dict[str, float] | None = None
    lead_errors: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    log: Interactions, since: float, cases: Sequence[Asked], new: Retriever, live: Retriever | None
) -> Judgement:
    """An item that a model does not know it cannot find: that is a miss. A history without a known
    item is answered as the service answers it, with popular items."""
    by_new, by_popularity = measure(log, cases, new), popular(log, since, cases)
    means = _means(by_new), _means(_lead(log, since, cases, new)), _means(by_popularity)
    if live is None:
        return Judgement(len(cases), *means)
    by_live, lead = measure(log, cases, live), _lead(log, since, cases, live)
    errors = {name: _error(by_new[name] - by_live[name]) for name in by_live}
    lead_errors = {name: _error(ahead) for name, ahead in lead.items()}
    return Judgement(len(cases), *means, _means(by_live), _means(lead), errors, lead_errors)


def measure(
    log: Interactions, cases: Sequence[Asked], retriever: Retriever
) -> dict[str, NDArray[np.float64]]:
    """Each metric at each cutoff, for each case (C,)."""
    place = {item: number for number, item in enumerate(log.item_ids)}
    rankings: list[list[int]] = []
    for start in range(0, len(cases), _BATCH):
        batch = cases[start : start + _BATCH]
        queries = [Query(case.history, max(CUTOFFS), exclude_seen=False) for case in batch]
        for answer in retriever.recommend(queries):
            ids = [retriever.catalog.id(row) for row in answer.rows.tolist()]
            rankings.append([place.get(item, _NOWHERE) for item in ids])
    return measured([case.relevant for case in cases], rankings)


def _lead(
    log: Interactions, since: float, cases: Sequence[Asked], retriever: Retriever
) -> dict[str, NDArray[np.float64]]:
    """Ahead of popularity, for each case in which the model knows an item that was taken."""
    known = np.array(retriever.catalog.rows(log.item_ids)) > 0
    there = [case._replace(relevant=[p for p in case.relevant if known[p]]) for case in cases]
    there = [case for case in there if case.relevant]
    own, rival = measure(log, there, retriever), popular(log, since, there)
    return {name: own[name] - rival[name] for name in own}


def popular(
    log: Interactions, since: float, cases: Sequence[Asked]
) -> dict[str, NDArray[np.float64]]:
    """As measure, of ranking by what was taken most before `since`."""
    counts = np.bincount(log.items[log.times < since], minlength=len(log.item_ids))
    head = np.argsort(-counts, kind="stable")[: max(CUTOFFS)].tolist()
    return measured([case.relevant for case in cases], [head] * len(cases))


def _means(values: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    return {name: float(each.mean()) if len(each) else 0.0 for name, each in values.items()}


def _error(differences: NDArray[np.float64]) -> float:
    """Of one user nothing is certain."""
    count = len(differences)
    return float(differences.std(ddof=1) / count**0.5) if count > 1 else 1.0


def gate_of(judgement: Judgement, config: NightConfig) -> Gate:
    """The gate for a day: what chance alone may do on its users is no failure."""
    drop, metric = config.metric_drop, config.metric
    if judgement.live is not None and judgement.errors is not None and judgement.live[metric]:
        noise = config.metric_standard_errors * judgement.errors[metric]
        drop = max(drop, noise / judgement.live[metric])
    return Gate(NIGHT, metric, drop, config.ann_recall, config.size_change)


def strange_day(judgement: Judgement, live: Manifest | None, config: NightConfig) -> list[str]:
    """A sentence if the live release is ahead of popularity by much less than on the day that let
    it in, though only items that it knows are asked for.

    Then it is the day that is not like others, and a model that fits it would be none.
    """
    metric = config.metric
    if live is None or judgement.live_lead is None or judgement.lead_errors is None:
        return []
    if LEAD not in live.metrics:
        return []  # it was not published by a night
    then, now = live.metrics[LEAD][metric], judgement.live_lead[metric]
    if now + 2 * judgement.lead_errors[metric] >= then * (1 - config.lead_drop):
        return []
    return [
        f"{metric} of the live {live.id} is {now:+.4f} from popularity's on this day, and was "
        f"{then:+.4f} on the day it was published on, of which {config.lead_drop:.1%} may be lost: "
        "check that the events name the items that were taken"
    ]

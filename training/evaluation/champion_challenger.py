"""A new model and the live release, compared on the same cases of the same held-out day."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from index.release.gate import DAY_LEAD, DAY_METRICS, Gate
from index.release.manifest import Manifest
from index.retrieval.retriever import Retriever
from training.data.event_window import DAY_S
from training.data.interactions import Interactions
from training.evaluation.holdout_day import DayCase
from training.evaluation.metrics import measure
from training.evaluation.popularity import most_recent_first, popularity_order
from training.evaluation.protocols import EvaluationCase
from training.evaluation.rankings import rank, rank_by_popularity

_CHECK_IDS = "check that the item ids of the events are right"
_NOT_IN_LOG = -1  # the index of an item that the log does not contain

UserMetrics = dict[str, NDArray[np.float64]]


class Thresholds(Protocol):
    """What a new model must reach to be published; settings of a nightly run are one.

    metric: what new and live are compared by. metric_drop: share by which new may be below live;
    metric_standard_errors: standard errors of the difference by which it may be below, if more,
    up to max_metric_drop, which a day of few users would exceed.
    popularity_drop: share by which new may be below popularity, of all time or of the last weeks.
    distinct_share: lowest share of distinct items among the lists of new's interests; None is any.
    lead_drop: share of its lead over popularity that live may lose on this day. ann_recall: least
    recall of the index. size_change: share by which the catalogue may grow or shrink.
    """

    @property
    def metric(self) -> str: ...
    @property
    def metric_drop(self) -> float: ...
    @property
    def metric_standard_errors(self) -> float: ...
    @property
    def max_metric_drop(self) -> float: ...
    @property
    def lead_drop(self) -> float: ...
    @property
    def popularity_drop(self) -> float: ...
    @property
    def distinct_share(self) -> float | None: ...
    @property
    def ann_recall(self) -> float: ...
    @property
    def size_change(self) -> float: ...


@dataclass(frozen=True)
class Comparison:
    """Metrics of a day, means over its users: of the new model, the live release, popularity, and
    the popularity of the last weeks before the day.

    errors: for each metric, the standard error of the difference between new and live.
    new_lead, live_lead: the metrics minus those of popularity, on the items that the model knows:
    what it has learnt about users, apart from new items. lead_errors: the standard errors of
    live_lead. lead_users: those with a held-out item that live knows.
    """

    users: int
    new: dict[str, float]
    new_lead: dict[str, float]
    popular: dict[str, float]
    live: dict[str, float] | None = None
    live_lead: dict[str, float] | None = None
    errors: dict[str, float] | None = None
    lead_errors: dict[str, float] | None = None
    lead_users: int | None = None
    recent: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare_releases(
    log: Interactions,
    since: float,
    cases: Sequence[DayCase],
    new: Retriever,
    live: Retriever | None,
    exclude_seen: bool = True,
    popularity_days: float | None = None,
) -> Comparison:
    """A held-out item that a model does not know is a miss. A history without a known item gets
    popular items, as in the service. exclude_seen: for both models and popularity alike.
    popularity_days: days before the held-out one whose best sellers are compared with, too."""
    by_new = day_metrics(log, cases, new, exclude_seen)
    by_popularity = day_popularity(log, since, cases, exclude_seen)
    new_lead = _lead(log, since, cases, new, exclude_seen)
    means = _means(by_new), _means(new_lead), _means(by_popularity)
    recent = None
    if popularity_days is not None:
        recent = _means(day_popularity(log, since, cases, exclude_seen, popularity_days))
    if live is None:
        return Comparison(len(cases), *means, recent=recent)
    by_live = day_metrics(log, cases, live, exclude_seen)
    lead = _lead(log, since, cases, live, exclude_seen)
    errors = {name: _standard_error(by_new[name] - by_live[name]) for name in by_live}
    lead_errors = {name: _standard_error(values) for name, values in lead.items()}
    lead_users = max(map(len, lead.values()))
    return Comparison(
        len(cases), *means, _means(by_live), _means(lead), errors, lead_errors, lead_users, recent
    )


def day_metrics(
    log: Interactions,
    cases: Sequence[DayCase],
    retriever: Retriever,
    exclude_seen: bool = True,
) -> UserMetrics:
    """Each metric at each cutoff, for each case (C,)."""
    index_of = {item: index for index, item in enumerate(log.item_ids)}
    histories = [(case.history, case.ages) for case in cases]
    rankings = (
        [index_of.get(retriever.catalog.id(row), _NOT_IN_LOG) for row in rows]
        for rows in rank(retriever, histories, exclude_seen)
    )
    return measure((case.relevant for case in cases), rankings)


def day_popularity(
    log: Interactions,
    since: float,
    cases: Sequence[DayCase],
    exclude_seen: bool = True,
    days: float | None = None,
) -> UserMetrics:
    """As day_metrics, of the popularity baseline: the most popular items before `since`; with days,
    first those of the last days before it."""
    before = log.times < since
    counts = np.bincount(log.items[before], minlength=len(log.item_ids))
    items = popularity_order(counts, log.item_ids.tolist())
    if days is not None:
        latest = before & (log.times >= since - days * DAY_S)
        items = most_recent_first(items, np.bincount(log.items[latest], minlength=len(counts)))
    index_of = {item: index for index, item in enumerate(log.item_ids)}
    in_rows = [
        EvaluationCase([index_of[item] for item in case.history], case.relevant) for case in cases
    ]
    rankings = rank_by_popularity(items, in_rows, exclude_seen)
    return measure((case.relevant for case in cases), rankings)


def _lead(
    log: Interactions,
    since: float,
    cases: Sequence[DayCase],
    retriever: Retriever,
    exclude_seen: bool,
) -> UserMetrics:
    """Metrics minus those of popularity, for each case with a held-out item that the model knows,
    on these items."""
    known = np.array(retriever.catalog.rows(log.item_ids)) > 0
    reduced = [case._replace(relevant=[i for i in case.relevant if known[i]]) for case in cases]
    reduced = [case for case in reduced if case.relevant]
    of_model = day_metrics(log, reduced, retriever, exclude_seen)
    baseline = day_popularity(log, since, reduced, exclude_seen)
    return {name: of_model[name] - baseline[name] for name in of_model}


def _means(metrics: UserMetrics) -> dict[str, float]:
    return {name: float(v.mean()) if len(v) else 0.0 for name, v in metrics.items()}


def _standard_error(values: NDArray[np.float64]) -> float:
    """Of the mean; 1, the range of a metric, for a single user."""
    count = len(values)
    return float(values.std(ddof=1) / count**0.5) if count > 1 else 1.0


def day_gate(comparison: Comparison, thresholds: Thresholds) -> Gate:
    """The gate for a day: a drop within the noise of its users is allowed, up to a ceiling."""
    drop, metric = thresholds.metric_drop, thresholds.metric
    if comparison.live is not None and comparison.errors is not None and comparison.live[metric]:
        noise = thresholds.metric_standard_errors * comparison.errors[metric]
        drop = max(drop, min(noise / comparison.live[metric], thresholds.max_metric_drop))
    return Gate(
        DAY_METRICS,
        metric,
        drop,
        thresholds.ann_recall,
        thresholds.size_change,
        thresholds.popularity_drop,
        thresholds.distinct_share,
    )


def check_day(comparison: Comparison, live: Manifest | None, thresholds: Thresholds) -> list[str]:
    """One sentence if the live release's lead over popularity, on the items that it knows, is much
    smaller than on the day on which it was published; or if it knows none of the day's items.

    Then the day's data is suspect, and a model that fits it would be wrong.
    """
    metric = thresholds.metric
    if live is None or comparison.live_lead is None or comparison.lead_errors is None:
        return []
    if comparison.lead_users == 0:
        return [f"none of the day's users took an item that the live {live.id} knows: {_CHECK_IDS}"]
    if DAY_LEAD not in live.metrics:
        return []  # it was not published by a nightly run
    then, now = live.metrics[DAY_LEAD][metric], comparison.live_lead[metric]
    # Up to a ceiling as in the gate: a share of the metric, as a lead may have been near zero.
    level = comparison.live[metric] if comparison.live is not None else 0.0
    noise = min(2 * comparison.lead_errors[metric], thresholds.max_metric_drop * level)
    if now + noise >= then * (1 - thresholds.lead_drop):
        return []
    return [
        f"{metric} of the live {live.id} is {now:+.4f} from popularity's on this day, and was "
        f"{then:+.4f} on the day it was published on; it may lose {thresholds.lead_drop:.1%} of "
        f"that: {_CHECK_IDS}"
    ]

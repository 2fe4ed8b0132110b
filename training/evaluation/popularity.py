"""The popularity baselines: the best sellers of the training part, and of its last weeks."""

import hashlib
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from index.release.gate import POPULAR, RECENT
from index.retrieval.catalog import Catalog
from training.data.event_window import DAY_S
from training.data.packed_log import PackedLog
from training.data.time_units import PER_SECOND, unit_of
from training.evaluation.detail import measure_in_detail
from training.evaluation.protocols import EvaluationCase
from training.evaluation.rankings import rank_by_popularity


def popularity_order(counts: NDArray[np.int64], ids: Sequence[str]) -> list[int]:
    """Indices of the items that occur at all, most popular first; a hash of the id breaks ties.

    counts (n,): interactions in what a model may be trained on. Those of the whole log would tell
    what is taken later.
    """
    hashes = np.array([hashlib.blake2b(item.encode(), digest_size=8).digest() for item in ids])
    order = np.lexsort((hashes, -counts))
    indices: list[int] = order[counts[order] > 0].tolist()
    return indices


def most_recent_first(items: Sequence[int], recent: NDArray[np.int64]) -> list[int]:
    """The same items by falling `recent`, the interactions of each; ties keep their order."""
    indices = np.array(items, dtype=np.int64)
    ordered: list[int] = indices[np.argsort(-recent[indices], kind="stable")].tolist()
    return ordered


def popular_rows(train: PackedLog, catalog: Catalog) -> list[int]:
    """The rows of the catalogue that occur in `train`, most popular first.

    train: what models are trained on, in rows of the catalogue; those above its N are left out.
    """
    size = len(catalog)
    counts = np.bincount(train.rows, minlength=size + 1)[1 : size + 1]
    return [index + 1 for index in popularity_order(counts, catalog.ids)]


def recent_rows(train: PackedLog, catalog: Catalog, days: float | None) -> list[int] | None:
    """As popular_rows, by interactions in the last days of `train`; then by those of all its time.

    None without days, or if the times have no unit, so that days cannot be told.
    """
    newest = float(train.times.max(initial=0.0))
    unit = unit_of(newest)
    if days is None or unit is None:
        return None
    since = newest - days * DAY_S * PER_SECOND[unit]
    size = len(catalog)
    recent = np.bincount(train.rows[train.times > since], minlength=size + 1)[1 : size + 1]
    indices = [row - 1 for row in popular_rows(train, catalog)]
    return [index + 1 for index in most_recent_first(indices, recent)]


def popularity_metrics(
    train: PackedLog,
    catalog: Catalog,
    cases: Sequence[EvaluationCase],
    exclude_seen: bool,
    days: float | None,
) -> dict[str, dict[str, float]]:
    """By baseline, POPULAR and where there is one RECENT, every metric that needs no interests.

    train: what the model is trained on. If the log has none of it, the catalogue's counts stand
    for it, and there is no RECENT.
    """
    popular = popular_rows(train, catalog) or _counted_rows(catalog)
    ranked = {POPULAR: popular, RECENT: recent_rows(train, catalog, days)}
    return {
        name: measure_in_detail(
            partial(rank_by_popularity, rows), cases, exclude_seen, catalog
        ).means
        for name, rows in ranked.items()
        if rows
    }


def _counted_rows(catalog: Catalog) -> list[int]:
    rows: list[int] = (np.flatnonzero(catalog.popularity) + 1).tolist()
    return rows

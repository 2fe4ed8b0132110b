"""What several interests are for: every metric with seen items kept and removed, by categories, and
by interest. Measured once for a model; its epochs are validated with less.

Names: `recall@50` is measured as the evaluation is set; `seen_kept/recall@50`, or
`seen_removed/recall@50`, the other way; `recall@50/2-3 categories` on users whose history has as
many, `users/2-3 categories` of them.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.retrieval.catalog import Catalog
from index.retrieval.retriever import Retriever
from training.evaluation.category_view import item_categories, view_of
from training.evaluation.interest_lists import interest_lists, without
from training.evaluation.metrics import (
    DISTINCT_SHARE,
    INTEREST_CUTOFF,
    CaseView,
    measure,
    measure_views,
    metric_names,
    view_names,
)
from training.evaluation.protocols import EvaluationCase
from training.evaluation.rankings import Ranker

INTEREST_USERS = 1000  # of whom each interest is searched alone
NO_CATEGORIES = (
    "the items have no categories, so minor interests and category coverage are not measured; give "
    "an item file, --items"
)
_BORDERS = (1, 2, 4, 8, 16, 10**9)  # of the numbers of categories
SEGMENTS = tuple(
    f"{low} categor{'y' if low == 1 else 'ies'}"
    if low + 1 == high
    else f"{low}-{high - 1} categories"
    if high < _BORDERS[-1]
    else f"{low} and more categories"
    for low, high in pairwise(_BORDERS)
)

UserMetrics = dict[str, NDArray[np.float64]]


class Detail(NamedTuple):
    """means: by name. users: each metric of the ranking, set as the evaluation is, by user (C,)."""

    means: dict[str, float]
    users: UserMetrics


def seen_prefix(exclude_seen: bool) -> str:
    return f"seen_{'removed' if exclude_seen else 'kept'}/"


def measure_in_detail(
    rank: Ranker,
    cases: Sequence[EvaluationCase],
    exclude_seen: bool,
    catalog: Catalog,
    retriever: Retriever | None = None,
) -> Detail:
    """retriever: whose interests are searched alone, too; a baseline has none.

    Without categories, the metrics that need them are missing.
    """
    categories = item_categories(catalog)
    views = [view_of(case, categories) for case in cases]
    lists = _lists(retriever, cases) if retriever is not None else {}
    means: dict[str, float] = {}
    users: UserMetrics = {}
    for mode in (exclude_seen, not exclude_seen):
        rankings = [*rank(cases, mode)]
        values = measure((case.relevant for case in cases), rankings)
        if mode == exclude_seen:
            users = dict(values)
        if categories:
            values |= measure_views(views, rankings, "categories")
        named = _means(values) | (_by_segment(values, views) if categories else {})
        named |= _of_interests(cases, views, rankings, lists, mode)
        prefix = "" if mode == exclude_seen else seen_prefix(mode)
        means |= {prefix + name: value for name, value in named.items()}
    return Detail(means, users)


def _means(values: UserMetrics) -> dict[str, float]:
    """Over the users for whom a metric is defined; not of one that is defined for nobody."""
    means = {}
    for name, by_user in values.items():
        defined = by_user[~np.isnan(by_user).reshape(len(by_user), -1).any(axis=1)]
        if len(defined):
            means[name] = float(np.max(defined.mean(axis=0)))
    return means


def _by_segment(values: UserMetrics, views: Sequence[CaseView]) -> dict[str, float]:
    counts = np.array([len(view.shown) for view in views])
    named: dict[str, float] = {}
    for segment, (low, high) in zip(SEGMENTS, pairwise(_BORDERS), strict=True):
        chosen = (counts >= low) & (counts < high)
        if chosen.any():
            means = _means({name: values[name][chosen] for name in metric_names("segments")})
            named |= {f"{name}/{segment}": mean for name, mean in means.items()}
            named[f"users/{segment}"] = float(chosen.sum())
    return named


def _lists(retriever: Retriever, cases: Sequence[EvaluationCase]) -> dict[int, list[list[int]]]:
    """The interests' lists of the first cases with a known item, by the case's position."""
    size = len(retriever.catalog)
    known = [case.known(size) for case in cases]
    positions = [position for position, case in enumerate(known) if case.history][:INTEREST_USERS]
    found = interest_lists(retriever, [known[position] for position in positions], INTEREST_CUTOFF)
    return dict(zip(positions, found, strict=True))


def _of_interests(
    cases: Sequence[EvaluationCase],
    views: Sequence[CaseView],
    rankings: Sequence[Sequence[int]],
    lists: dict[int, list[list[int]]],
    exclude_seen: bool,
) -> dict[str, float]:
    """Where a case has candidates, the lists are of all items: only they can be compared."""
    if not lists:
        return {}
    seen = {position: {*cases[position].history} if exclude_seen else set() for position in lists}
    with_lists = [
        views[position]._replace(lists=[without(rows, seen[position]) for rows in of_user])
        for position, of_user in lists.items()
    ]
    ranked = [rankings[position] for position in lists]
    means = _means(measure_views(with_lists, ranked, "interests"))
    if cases[0].candidates is not None:
        return {DISTINCT_SHARE: means[DISTINCT_SHARE]}
    return means


INTEREST_COLUMNS = (*view_names("interests"), *view_names("categories"))

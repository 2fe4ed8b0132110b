"""Offline metrics of one ranking, and the registry that every list of metric names derives from.

To add one, register a function of (ranked, relevant, n): `ranked` is best first, without repeats;
`relevant` is in order of time, not empty, and an item that occurs in it twice counts once; n is the
cutoff. Its name is the function's, `recall@50`
with a cutoff. Every metric is measured at all CUTOFFS; the registration says where else it is used.

One that needs more is a function of (ranked, view, n), a CaseView, measured at INTEREST_CUTOFF. NaN
means that it is not defined for the case. A list has a value for each interest; the metric is then
the best of the K means over the users.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

CUTOFFS = (5, 10, 20, 50)
INTEREST_CUTOFF = 50

# What a metric needs: the ranking, the items' categories too, or each interest's own list.
Need = Literal["ranking", "categories", "interests"]
MetricFunction = Callable[..., Any]
Function = TypeVar("Function", bound=MetricFunction)
# selection: a fit can select its weights by it. gate: a nightly run can compare releases by it.
# nightly: column of the nightly report. comparison: column of a comparison of systems.
# per-user: kept for each user, to test differences. paper: column beside the Re4 paper's results.
# segments: measured again by the number of categories in the history.
Use = Literal["selection", "gate", "nightly", "comparison", "per-user", "paper", "segments"]


@dataclass(frozen=True)
class Metric:
    """uses: the cutoffs of each use."""

    name: str
    function: MetricFunction
    uses: Mapping[Use, tuple[int, ...]]
    needs: Need = "ranking"


class CaseView(NamedTuple):
    """A case as the metrics of interests see it.

    shown: the categories of the history's items. minor: the relevant items that have a category,
    but none of those that most items of the history have. categories: of each row; a row that has
    none may be missing. lists: each interest's best items, best first.
    """

    relevant: Sequence[int]
    shown: Collection[str] = ()
    minor: Collection[int] = ()
    categories: Mapping[int, Collection[str]] = {}
    lists: Sequence[Sequence[int]] = ()


METRICS: dict[str, Metric] = {}


def register(
    uses: Mapping[Use, tuple[int, ...]] | None = None, needs: Need = "ranking"
) -> Callable[[Function], Function]:
    """Add the function to METRICS; the order of registration is that of all columns."""

    def add(function: Function) -> Function:
        name = function.__name__
        METRICS[name] = Metric(name, function, uses or {}, needs)
        return function

    return add


def metric_names(use: Use) -> tuple[str, ...]:
    """The names with cutoff, such as recall@50, of the metrics that have this use."""
    return tuple(f"{m.name}@{n}" for m in METRICS.values() for n in m.uses.get(use, ()))


def measure(
    relevant: Iterable[Sequence[int]], rankings: Iterable[Sequence[int]]
) -> dict[str, NDArray[np.float64]]:
    """Each metric of rankings at each cutoff, by name: (C,), one value for each case."""
    values: dict[str, list[float]] = {name: [] for name in METRIC_NAMES}
    metrics = _needing("ranking")
    for repeated, ranked in zip(relevant, rankings, strict=True):
        items = [*dict.fromkeys(repeated)]
        for metric in metrics:
            for n in CUTOFFS:
                values[f"{metric.name}@{n}"].append(metric.function(ranked, items, n))
    return {name: np.array(by_case) for name, by_case in values.items()}


def measure_views(
    views: Iterable[CaseView], rankings: Iterable[Sequence[int]], needs: Need
) -> dict[str, NDArray[np.float64]]:
    """The metrics that need this, by name: (C,), or (C, K) if they have a value for each interest.

    NaN where a metric is not defined.
    """
    pairs = [*zip(views, rankings, strict=True)]
    return {
        name: np.array([metric.function(ranked, view, INTEREST_CUTOFF) for view, ranked in pairs])
        for name, metric in zip(view_names(needs), _needing(needs), strict=True)
    }


def view_names(needs: Need) -> tuple[str, ...]:
    """The names of the metrics that need this. distinct_share is known without its cutoff."""
    return tuple(
        metric.name if metric.name == DISTINCT_SHARE else f"{metric.name}@{INTEREST_CUTOFF}"
        for metric in _needing(needs)
    )


def _needing(needs: Need) -> list[Metric]:
    return [metric for metric in METRICS.values() if metric.needs == needs]


@register(
    {
        "selection": (10, 20, 50),
        "gate": CUTOFFS,
        "nightly": (10, 20, 50),
        "comparison": (10, 20, 50),
        "per-user": (20, 50),
        "paper": (20, 50),
        "segments": (50,),
    }
)
def recall(ranked: Sequence[int], relevant: Collection[int], n: int) -> float:
    """Share of the relevant items that are among the first n."""
    return _hits(ranked, relevant, n) / len(set(relevant))


@register(
    {
        "selection": CUTOFFS,
        "gate": CUTOFFS,
        "nightly": (20, 50),
        "comparison": (10, 20, 50),
        "per-user": (50,),
    }
)
def ndcg(ranked: Sequence[int], relevant: Collection[int], n: int) -> float:
    """DCG of the first n over that of an ideal ranking of min(|relevant|, n) relevant items."""
    return _gain(ranked, relevant, n) / _ideal_gain(min(len(set(relevant)), n))


@register()
def ndcg_hits(ranked: Sequence[int], relevant: Collection[int], n: int) -> float:
    """ComiRec's corrected code, to compare with its tables: the ideal has as many items as hits."""
    hits = _hits(ranked, relevant, n)
    return _gain(ranked, relevant, n) / _ideal_gain(hits) if hits else 0.0


@register({"paper": (20, 50)})
def ndcg_gt_order(ranked: Sequence[int], relevant: Sequence[int], n: int) -> float:
    """The ComiRec and Re4 papers', to compare with their tables: a hit is discounted by its rank
    among the *relevant* items, in order of time, and the ideal has as many items as hits.
    """
    top, distinct = set(ranked[:n]), dict.fromkeys(relevant)
    gain = sum(1 / math.log2(index + 2) for index, item in enumerate(distinct) if item in top)
    hits = len(top & distinct.keys())
    return gain / _ideal_gain(hits) if hits else 0.0


@register({"gate": CUTOFFS, "nightly": (50,), "comparison": (20, 50), "paper": (20, 50)})
def hit(ranked: Sequence[int], relevant: Collection[int], n: int) -> float:
    """1 if any relevant item is among the first n, else 0."""
    return float(_hits(ranked, relevant, n) > 0)


@register({"segments": (INTEREST_CUTOFF,)}, needs="categories")
def minor_recall(ranked: Sequence[int], view: CaseView, n: int) -> float:
    """Recall of the user's minor interests: of the relevant items of other categories than the most
    frequent of the history. Not defined for a user without such items."""
    return recall(ranked, view.minor, n) if view.minor else math.nan


@register(needs="categories")
def category_coverage(ranked: Sequence[int], view: CaseView, n: int) -> float:
    """Share of the history's categories that the first n have. Not defined if it has none."""
    if not view.shown:
        return math.nan
    found = {name for row in ranked[:n] for name in view.categories.get(row, ())}
    return len(found & set(view.shown)) / len(view.shown)


@register(needs="interests")
def distinct_share(ranked: Sequence[int], view: CaseView, n: int) -> float:
    """Distinct items among the first n of each interest's list, over their number.

    1 / K if all lists are the same, 1 if they have no item in common, or K is 1.
    """
    items = [row for rows in view.lists for row in rows[:n]]
    return len({*items}) / max(len(items), 1)


@register(needs="interests")
def merged_recall(ranked: Sequence[int], view: CaseView, n: int) -> float:
    """Recall of the served ranking, on the users of whom each interest is searched alone."""
    return recall(ranked, view.relevant, n)


@register(needs="interests")
def single_interest_recall(ranked: Sequence[int], view: CaseView, n: int) -> list[float]:
    """Recall of each interest's own list: that of the interest that is best over all users."""
    return [recall(rows, view.relevant, n) for rows in view.lists]


@register(needs="interests")
def best_interest_recall(ranked: Sequence[int], view: CaseView, n: int) -> float:
    """Recall of the list of the interest that finds most, chosen for each user in hindsight."""
    return max(single_interest_recall(ranked, view, n))


def _hits(ranked: Sequence[int], relevant: Collection[int], n: int) -> int:
    return len(set(ranked[:n]) & set(relevant))


def _gain(ranked: Sequence[int], relevant: Collection[int], n: int) -> float:
    items = set(relevant)
    return sum(1 / math.log2(index + 2) for index, item in enumerate(ranked[:n]) if item in items)


def _ideal_gain(count: int) -> float:
    return sum(1 / math.log2(index + 2) for index in range(count))


DISTINCT_SHARE = distinct_share.__name__
METRIC_NAMES = tuple(f"{metric.name}@{n}" for metric in _needing("ranking") for n in CUTOFFS)
SELECTABLE, GATEABLE = metric_names("selection"), metric_names("gate")
# Types of settings: pydantic and the command line list the choices.
if TYPE_CHECKING:
    SelectionMetric = str
    GateMetric = str
else:
    SelectionMetric, GateMetric = Literal[SELECTABLE], Literal[GATEABLE]

"""Offline metrics of one ranking, and the registry that every list of metric names derives from.

To add one, register a function of (ranked, relevant, n): `ranked` is best first, without repeats;
`relevant` is in order of time, not empty, and an item that occurs in it twice counts once; n is the
cutoff. Its name is the function's, `recall@50`
with a cutoff. Every metric is measured at all CUTOFFS; the registration says where else it is used.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

CUTOFFS = (5, 10, 20, 50)

MetricFunction = Callable[[Sequence[int], Sequence[int], int], float]
# selection: a fit can select its weights by it. gate: a nightly run can compare releases by it.
# nightly: column of the nightly report. comparison: column of a comparison of systems.
# per-user: kept for each user, to test differences. paper: column beside the Re4 paper's results.
Use = Literal["selection", "gate", "nightly", "comparison", "per-user", "paper"]


@dataclass(frozen=True)
class Metric:
    """uses: the cutoffs of each use."""

    name: str
    function: MetricFunction
    uses: Mapping[Use, tuple[int, ...]]


METRICS: dict[str, Metric] = {}


def register(
    uses: Mapping[Use, tuple[int, ...]] | None = None,
) -> Callable[[MetricFunction], MetricFunction]:
    """Add the function to METRICS; the order of registration is that of all columns."""

    def add(function: MetricFunction) -> MetricFunction:
        name = function.__name__
        METRICS[name] = Metric(name, function, uses or {})
        return function

    return add


def metric_names(use: Use) -> tuple[str, ...]:
    """The names with cutoff, such as recall@50, of the metrics that have this use."""
    return tuple(f"{m.name}@{n}" for m in METRICS.values() for n in m.uses.get(use, ()))


def measure(
    relevant: Iterable[Sequence[int]], rankings: Iterable[Sequence[int]]
) -> dict[str, NDArray[np.float64]]:
    """Each metric at each cutoff, by name: (C,), one value for each case."""
    values: dict[str, list[float]] = {name: [] for name in METRIC_NAMES}
    for repeated, ranked in zip(relevant, rankings, strict=True):
        items = [*dict.fromkeys(repeated)]
        for metric in METRICS.values():
            for n in CUTOFFS:
                values[f"{metric.name}@{n}"].append(metric.function(ranked, items, n))
    return {name: np.array(by_case) for name, by_case in values.items()}


@register(
    {
        "selection": (10, 20, 50),
        "gate": CUTOFFS,
        "nightly": (10, 20, 50),
        "comparison": (20, 50),
        "per-user": (20, 50),
        "paper": (20, 50),
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
        "comparison": (20, 50),
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


def _hits(ranked: Sequence[int], relevant: Collection[int], n: int) -> int:
    return len(set(ranked[:n]) & set(relevant))


def _gain(ranked: Sequence[int], relevant: Collection[int], n: int) -> float:
    items = set(relevant)
    return sum(1 / math.log2(index + 2) for index, item in enumerate(ranked[:n]) if item in items)


def _ideal_gain(count: int) -> float:
    return sum(1 / math.log2(index + 2) for index in range(count))


METRIC_NAMES = tuple(f"{name}@{n}" for name in METRICS for n in CUTOFFS)
SELECTABLE, GATEABLE = metric_names("selection"), metric_names("gate")
# Types of settings: pydantic and the command line list the choices.
if TYPE_CHECKING:
    SelectionMetric = str
    GateMetric = str
else:
    SelectionMetric, GateMetric = Literal[SELECTABLE], Literal[GATEABLE]

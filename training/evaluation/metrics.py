"""Metrics of one ranking, as pure functions. `ranked` is best first, without repeats."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence


def recall(ranked: Sequence[int], relevant: Collection[int], n: int) -> float:
    """Share of the relevant items that are among the first n."""
    return _hits(ranked, relevant, n) / len(relevant)


def hit(ranked: Sequence[int], relevant: Collection[int], n: int) -> float:
    """1 if any relevant item is among the first n, else 0."""
    return float(_hits(ranked, relevant, n) > 0)


def ndcg(ranked: Sequence[int], relevant: Collection[int], n: int) -> float:
    """DCG of the first n over that of an ideal ranking of min(|relevant|, n) relevant items."""
    return _gain(ranked, relevant, n) / _ideal(min(len(relevant), n))


def ndcg_hits(ranked: Sequence[int], relevant: Collection[int], n: int) -> float:
    """ComiRec's corrected code, to compare with its tables: ideal over the number of hits."""
    hits = _hits(ranked, relevant, n)
    return _gain(ranked, relevant, n) / _ideal(hits) if hits else 0.0


def ndcg_gt_order(ranked: Sequence[int], relevant: Sequence[int], n: int) -> float:
    """The ComiRec and Re4 papers', to compare with their tables: a hit is discounted by its place
    among the *relevant* items, in order of time, and the ideal is over the number of hits.
    """
    found = set(ranked[:n])
    gain = sum(1 / math.log2(place + 2) for place, item in enumerate(relevant) if item in found)
    hits = sum(item in found for item in relevant)
    return gain / _ideal(hits) if hits else 0.0


METRICS: Mapping[str, Callable[[Sequence[int], Sequence[int], int], float]] = {
    "recall": recall,
    "hit": hit,
    "ndcg": ndcg,
    "ndcg_hits": ndcg_hits,
    "ndcg_gt_order": ndcg_gt_order,
}


def _hits(ranked: Sequence[int], relevant: Collection[int], n: int) -> int:
    return len(set(ranked[:n]) & set(relevant))


def _gain(ranked: Sequence[int], relevant: Collection[int], n: int) -> float:
    wanted = set(relevant)
    return sum(1 / math.log2(place + 2) for place, item in enumerate(ranked[:n]) if item in wanted)


def _ideal(count: int) -> float:
    return sum(1 / math.log2(place + 2) for place in range(count))

"""Diversity of categories: ComiRec's controllable aggregation, independent of the score scale.

ComiRec (Cen et al., KDD 2020) chooses the k items S of a pool that maximise

    Q(S) = sum over i in S of f(i)  +  lambda * sum over pairs {i, j} in S of [categories differ]

greedily, one item after the other. There lambda is in units of f, so that its effect differs for
every model and k. Here both sums are scaled to the range 0 to k, and weighted by `diversity`, from
0 to 1:

    Q(S) = (1 - diversity) * sum of r(i)  +  diversity * 2 / (k - 1) * number of such pairs
    r(i) = (f(i) - min f of the pool) / (max - min f of the pool), 0 if all are equal

Scaling or shifting all scores of a model changes nothing. At 0 the order is that of the scores; at
1 categories alternate, the best item of each first.

With n items chosen, t of them of the category of item i, choosing i adds (1 - diversity) r(i) +
w (n - t), w = 2 diversity / (k - 1). Within a category the best item is always chosen next, and n
is the same for all: so the greedy choice is a sort by (1 - diversity) r(i) - w t(i), where t(i) is
the number of better items of the same category, ties to the better item.
"""

import numpy as np
from numpy.typing import NDArray

POOL_FACTOR = 4  # items in the pool, times k: as ComiRec's pool of 4 interests with k items each


def diversify(
    scores: NDArray[np.float32], categories: NDArray[np.integer], k: int, diversity: float
) -> NDArray[np.int64]:
    """Positions of the k items chosen from a pool, in the order of choice.

    scores (P,), falling; categories (P,): integer codes; items without a category share one.
    """
    relevance = _relevance(scores.astype(np.float64))
    penalty = 2 * diversity / max(k - 1, 1)
    gains = (1 - diversity) * relevance - penalty * count_before(categories)
    return (-gains).argsort(kind="stable")[:k]


def _relevance(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(scores) or scores[0] == scores[-1]:
        return np.zeros(len(scores))
    relevance: NDArray[np.float64] = (scores - scores[-1]) / (scores[0] - scores[-1])
    return relevance


def count_before(categories: NDArray[np.integer]) -> NDArray[np.int64]:
    """For each item, the number of items of its category, or other label, that come before it."""
    order = categories.argsort(kind="stable")
    ordered = categories[order]
    positions = np.arange(len(order))
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    sizes = np.diff(starts, append=len(order))
    counts = np.empty(len(order), dtype=np.int64)
    counts[order] = positions - np.repeat(starts, sizes)
    return counts

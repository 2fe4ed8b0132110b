"""Candidates of several categories: ComiRec's controllable aggregation, on a scale of its own.

ComiRec (Cen et al., KDD 2020) chooses the k items S of a pool that make the most of

    Q(S) = sum over i in S of f(i)  +  lambda * sum over pairs {i, j} in S of [categories differ]

greedily, one item after the other. There lambda counts in units of f, so that it means something
else for every model and k. Here both sums are brought to the range 0 to k, and weighed by
`diversity`, from 0 to 1:

    Q(S) = (1 - diversity) * sum of r(i)  +  diversity * 2 / (k - 1) * number of such pairs
    r(i) = (f(i) - least f of the pool) / (greatest - least f of the pool), 0 where all are equal

Multiplying all scores of a model, or adding to them, changes nothing. At 0 the order is that of the
scores; at 1 categories take turns, the best of each first.

With n items chosen, t of them of the category of item i, choosing i adds (1 - diversity) r(i) +
w (n - t), w = 2 diversity / (k - 1). Of a category the best is always chosen next, and n is the
same for all: so the greedy choice is a sort by (1 - diversity) r(i) - w t(i), where t(i) counts the
better items of the same category, ties to the better item.
"""

import numpy as np
from numpy.typing import NDArray

POOL = 4  # items in the pool for one that is wanted: ComiRec's, with its 4 interests of k each


def diversify(
    scores: NDArray[np.float32], categories: NDArray[np.integer], k: int, diversity: float
) -> NDArray[np.int64]:
    """Places of the k items to take from a pool, in the order in which they are chosen.

    scores (P,), falling; categories (P,): a number for each, of which those without one share one.
    """
    relevance = _relevance(scores.astype(np.float64))
    setback = 2 * diversity / max(k - 1, 1)
    keys = (1 - diversity) * relevance - setback * _better_alike(categories)
    return (-keys).argsort(kind="stable")[:k]


def _relevance(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(scores) or scores[0] == scores[-1]:
        return np.zeros(len(scores))
    relevance: NDArray[np.float64] = (scores - scores[-1]) / (scores[0] - scores[-1])
    return relevance


def _better_alike(categories: NDArray[np.integer]) -> NDArray[np.int64]:
    """How many of the same category come before each."""
    order = categories.argsort(kind="stable")
    ordered = categories[order]
    places = np.arange(len(order))
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    sizes = np.diff(starts, append=len(order))
    before = np.empty(len(order), dtype=np.int64)
    before[order] = places - np.repeat(starts, sizes)
    return before

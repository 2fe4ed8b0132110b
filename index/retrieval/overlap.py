"""How much of what the interests of one user find is the same."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.retrieval.merge import merge
from index.retrieval.search import ItemIndex


class InterestOverlap(NamedTuple):
    """How many distinct items are among the k best of each of the K interests, of how many in all.

    `of` is K times k if there are as many items; distinct / of is 1 / K if all interests are equal.
    """

    distinct: int
    of: int


def measure_overlap(index: ItemIndex, interests: NDArray[np.float32], k: int) -> InterestOverlap:
    """interests (K, D), each searched alone."""
    rows = merge(index.search(interests[:, None, :], k)).rows[:, :k]
    found = rows[rows > 0]
    return InterestOverlap(len(np.unique(found)), len(found))

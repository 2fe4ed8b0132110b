"""The quota of an interest: how many of the candidates it may have found."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from index.retrieval.diversity import count_before
from index.retrieval.merge import QueryHits

DEPTH = 16  # times as many items are looked through while some interests have found too few


def within_quota(
    pool: QueryHits, ranking: Callable[[int], QueryHits], quota: int, count: int, interests: int
) -> QueryHits:
    """The `count` best items of which each of the interests found at most `quota`, best first.

    They are among the DEPTH * count best items: an interest that hardly differs from others may
    have found none of millions. pool: the `count` best items, or all if they are fewer. ranking: as
    many as it is given.
    """
    kept = _kept(pool, quota, count)
    if len(kept) < min(count, quota * interests) and len(pool[0]) >= count:
        pool = ranking(DEPTH * count)
        kept = _kept(pool, quota, count)
    return pool[0].take(kept), pool[1].take(kept), pool[2].take(kept)


def _kept(pool: QueryHits, quota: int, count: int) -> NDArray[np.int64]:
    return np.flatnonzero(count_before(pool[2]) < quota)[:count]

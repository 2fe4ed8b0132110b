"""The quota of an interest: how many of the candidates it may have found."""

from collections.abc import Callable

import numpy as np

from index.retrieval.diversity import count_before
from index.retrieval.merge import QueryHits

_DEEPER = 4  # times as many items are ranked while interests with room left have found too few


def within_quota(
    pool: QueryHits, ranking: Callable[[int], QueryHits], quota: int, count: int, interests: int
) -> QueryHits:
    """The `count` best items of which each of the interests found at most `quota`, best first.

    pool: the `count` best items, or all if they are fewer. ranking: as many as it is given.
    """
    ranked = count
    while True:
        kept = np.flatnonzero(count_before(pool[2]) < quota)[:count]
        if len(kept) == min(count, quota * interests) or len(pool[0]) < ranked:
            return pool[0].take(kept), pool[1].take(kept), pool[2].take(kept)
        ranked *= _DEEPER
        pool = ranking(ranked)

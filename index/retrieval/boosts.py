"""Boosts of items with some attributes: what they add to the scores that rank a query's items.

Items of the same sum of boosts are searched together and keep their order, so that the best of all
items are found, and not only of those that would be candidates without boosts.

Their unit is the spread of the query's pool: the difference between the best and the worst score of
its POOL_FACTOR * k best allowed items. Adding 1 lifts the last of the pool to the first, whatever
the scale of the model's scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.retrieval.attribute_filter import AttributeFilter
from index.retrieval.corpus import Corpus
from index.retrieval.filters import Filter
from index.retrieval.merge import QueryHits, merge_query_hits
from index.retrieval.ranking import Rank

MAX_BOOSTS = 7  # of a query


@dataclass(frozen=True, slots=True)
class Boost:
    """Adds `add` units to the score of each item that has the attributes."""

    attributes: AttributeFilter
    add: float


@dataclass(frozen=True, eq=False)
class BoostGroups:
    """The items in groups, by the sum of their boosts.

    group_of (N + M + 1,): of each row of a corpus; -1 for row 0. totals (G,): the sum of each
    group, in units.
    """

    group_of: NDArray[np.int8]
    totals: NDArray[np.float64]

    @classmethod
    def of(cls, boosts: Sequence[Boost], corpus: Corpus) -> "BoostGroups":
        """boosts: at most MAX_BOOSTS, and one at least."""
        # Of the boosts an item gets, a bit for each.
        which = corpus.mask(boosts[0].attributes).view(np.uint8)
        for bit, boost in enumerate(boosts[1:], start=1):
            which |= corpus.mask(boost.attributes).view(np.uint8) << bit
        sums = [
            sum(boost.add for bit, boost in enumerate(boosts) if bits >> bit & 1)
            for bits in range(1 << len(boosts))
        ]
        totals, groups = np.unique(np.array(sums, np.float64), return_inverse=True)
        group_of = groups.astype(np.int8).take(which)
        group_of[0] = -1
        return cls(group_of, totals)

    def best(self, rank: Rank, allowed: Filter, count: int, unit: float) -> QueryHits:
        """The `count` best allowed items by score and boosts, best first, ties to the lower row."""
        parts = [allowed.within(self.group_of == group) for group in range(len(self.totals))]
        groups = [group for group, part in enumerate(parts) if part.passes_any] or [0]
        found = rank([parts[group] for group in groups], count)
        added = self._in_scores(unit).take(groups)
        rows, scores, interests = merge_query_hits(
            np.concatenate([hits[0] for hits in found]),
            np.concatenate([hits[1] + more for hits, more in zip(found, added, strict=True)]),
            np.concatenate([hits[2] for hits in found]),
        )
        return rows[:count], scores[:count], interests[:count]

    def added(self, rows: NDArray[np.int64], unit: float) -> NDArray[np.float32]:
        """(n,): what the scores of rows (n,) contain of boosts."""
        return self._in_scores(unit).take(self.group_of.take(rows))

    def _in_scores(self, unit: float) -> NDArray[np.float32]:
        """(G,): the sum of each group, on the scale of the scores."""
        return (self.totals * unit).astype(np.float32)


def unit_of(scores: NDArray[np.float32]) -> float:
    """The unit of boosts, from the scores of a pool, falling; 1 if they do not differ."""
    return (float(scores[0]) - float(scores[-1]) if len(scores) else 0.0) or 1.0

"""K lists of hits -> one ranking: an item's score is its best over the interests (Re4 Eq. 17)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Hits(NamedTuple):
    """Items found for each of B requests, in no order; an item may stand there once an interest.

    rows (B, M) int64, below 1 where there is no hit; scores (B, M) float32, inner products;
    interests (B, M) int64, which of the K found it.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    interests: NDArray[np.int64]


# The rows, scores and interests of one request: a line of Hits, as long as it has to be.
QueryHits = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]


def stack_hits(lines: Sequence[QueryHits]) -> Hits:
    """Requests of differing length as one Hits; places left over have row 0 and score -inf."""
    if len(lines) == 1:
        rows, scores, interests = lines[0]
        return Hits(rows[None], scores[None], interests[None])
    shape = len(lines), max((len(line[0]) for line in lines), default=0)
    hits = Hits(
        rows=np.zeros(shape, dtype=np.int64),
        scores=np.full(shape, -np.inf, dtype=np.float32),
        interests=np.zeros(shape, dtype=np.int64),
    )
    for place, (rows, scores, interests) in enumerate(lines):
        found = len(rows)
        hits.rows[place, :found] = rows
        hits.scores[place, :found] = scores
        hits.interests[place, :found] = interests
    return hits


def merge(hits: Hits) -> Hits:
    """Each request's distinct items, best first, with their best score and the interest of it.

    Ties go to the lower row, then the lower interest. Places left over have row 0 and score -inf,
    and stand last.
    """
    return stack_hits([merge_line(*line) for line in zip(*hits, strict=True)])


def merge_line(
    rows: NDArray[np.int64], scores: NDArray[np.float32], interests: NDArray[np.int64]
) -> QueryHits:
    """The same of one request, without places left over."""
    if not _rise(rows):
        best = _best_places(rows, scores, interests)
        rows, scores, interests = rows.take(best), scores.take(best), interests.take(best)
    order = (-scores).argsort(kind="stable")
    return rows.take(order), scores.take(order), interests.take(order)


def _rise(rows: NDArray[np.int64]) -> bool:
    """True where there is nothing to drop. Our indexes give their hits in this order."""
    return not len(rows) or bool(rows[0] > 0 and (rows[1:] > rows[:-1]).all())


def _best_places(
    rows: NDArray[np.int64], scores: NDArray[np.float32], interests: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Where each item has its best score, in order of the items."""
    # One integer for both, by row and then falling score, sorts in a fraction of lexsort's time.
    keys = (rows << 32) - _ordinals(scores)
    order = keys.argsort()
    ranked = keys.take(order)
    if (ranked[1:] == ranked[:-1]).any():
        order = np.lexsort((interests, keys))
    ascending = rows.take(order)
    first = ascending > 0
    first[1:] &= ascending[1:] != ascending[:-1]
    return order[first]


def _ordinals(scores: NDArray[np.float32]) -> NDArray[np.int32]:
    """Integers in the order of the scores."""
    bits = (scores + np.float32(0)).view(np.int32)  # the sum makes 0 of -0
    ordinals: NDArray[np.int32] = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return ordinals

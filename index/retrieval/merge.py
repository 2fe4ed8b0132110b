"""Merging the hits of K interests: an item's score is its best over the interests (Re4 Eq. 17)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Hits(NamedTuple):
    """Hits of B requests, in no order; an item may appear once for each interest.

    rows (B, M) int64, below 1 for padding; scores (B, M) float32, inner products;
    interests (B, M) int64, which of the K interests found the item.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    interests: NDArray[np.int64]


# Rows, scores and interests of one request's hits, without padding.
QueryHits = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]


def stack_hits(requests: Sequence[QueryHits]) -> Hits:
    """The hits of several requests, padded to equal length with row 0 and score -inf."""
    if len(requests) == 1:
        rows, scores, interests = requests[0]
        return Hits(rows[None], scores[None], interests[None])
    shape = len(requests), max((len(hits[0]) for hits in requests), default=0)
    stacked = Hits(
        rows=np.zeros(shape, dtype=np.int64),
        scores=np.full(shape, -np.inf, dtype=np.float32),
        interests=np.zeros(shape, dtype=np.int64),
    )
    for request, (rows, scores, interests) in enumerate(requests):
        count = len(rows)
        stacked.rows[request, :count] = rows
        stacked.scores[request, :count] = scores
        stacked.interests[request, :count] = interests
    return stacked


def merge(hits: Hits) -> Hits:
    """Each request's distinct items, best first, with their best score and its interest.

    Ties go to the lower row, then the lower interest. Padding of row 0 and score -inf is last.
    """
    return stack_hits([merge_query_hits(*query_hits) for query_hits in zip(*hits, strict=True)])


def merge_query_hits(
    rows: NDArray[np.int64], scores: NDArray[np.float32], interests: NDArray[np.int64]
) -> QueryHits:
    """As merge, for one request and without padding."""
    if not _rows_ascend(rows):
        best = _best_hit_of_each_row(rows, scores, interests)
        rows, scores, interests = rows.take(best), scores.take(best), interests.take(best)
    order = (-scores).argsort(kind="stable")
    return rows.take(order), scores.take(order), interests.take(order)


def _rows_ascend(rows: NDArray[np.int64]) -> bool:
    """Whether rows strictly ascend, without padding or duplicates. Hits of our indexes do."""
    return not len(rows) or bool(rows[0] > 0 and (rows[1:] > rows[:-1]).all())


def _best_hit_of_each_row(
    rows: NDArray[np.int64], scores: NDArray[np.float32], interests: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Positions of each item's best hit, in ascending order of rows."""
    # One integer key, by row and then falling score, sorts in a fraction of lexsort's time.
    keys = (rows << 32) - _order_preserving_integers(scores)
    order = keys.argsort()
    sorted_keys = keys.take(order)
    if (sorted_keys[1:] == sorted_keys[:-1]).any():
        order = np.lexsort((interests, keys))
    sorted_rows = rows.take(order)
    is_best = sorted_rows > 0
    is_best[1:] &= sorted_rows[1:] != sorted_rows[:-1]
    return order[is_best]


def _order_preserving_integers(scores: NDArray[np.float32]) -> NDArray[np.int32]:
    """Integers in the same order as the scores."""
    bits = (scores + np.float32(0)).view(np.int32)  # adding 0 turns -0 into 0
    integers: NDArray[np.int32] = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return integers

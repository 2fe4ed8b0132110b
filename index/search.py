"""The best items that are allowed: search, drop, look deeper, and in the end look at all of them.

Before anything is dropped, a ranking is cut where it is certain to be complete. So an answer is the
same however deep the search for it went: the ranking of all items, but for the approximation of the
index, with what is not allowed left out.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.ann import ItemIndex
from index.ann_flat import leaders, score
from index.filters import Filter
from index.merge import Line, merge, stack

_CHUNK = 1 << 14  # vectors looked at in one go, so that they and their scores stay in the cache
_DENSE = 4  # where one row in so many is allowed, it is quicker to look at the others too
_ERROR = 1e-5  # of the largest score: more than float32 loses in a sum of some hundred terms


@dataclass(slots=True)
class Timings:
    """Seconds spent in each stage, added up over the calls it was handed to."""

    encode: float = 0.0
    search: float = 0.0
    merge: float = 0.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """The `count` best items that a filter allows, or all of them if they are fewer."""

    count: int
    filter: Filter


def search(
    index: ItemIndex,
    vectors: NDArray[np.float32],
    interests: NDArray[np.float32],
    wanted: Sequence[Wanted],
    timings: Timings,
) -> list[Line]:
    """For each request, interests (B, K, D), what it wants: best first, ties to the lower row.

    vectors (N + 1, D): those that the index is over.
    """
    found: dict[int, Line] = {}
    left = {place: each.filter.depths(each.count) for place, each in enumerate(wanted)}
    while left:
        depths = {place: depths.pop(0) for place, depths in left.items() if depths}
        for places in _alike(depths):
            depth = min(max(depths[place] for place in places), len(vectors) - 1)
            start = time.perf_counter()
            asked = interests if len(places) == len(interests) else interests[places]
            hits = index.search(asked, depth)
            searched = time.perf_counter()
            for place, line in zip(places, zip(*merge(hits), strict=True), strict=True):
                if taken := _take(line, depth, wanted[place], len(vectors) - 1):
                    found[place] = taken
            timings.search += searched - start
            timings.merge += time.perf_counter() - searched
        start = time.perf_counter()
        for place in left.keys() - depths.keys():
            found[place] = look_at_all(vectors, interests[place], wanted[place])
        timings.search += time.perf_counter() - start
        left = {place: depths for place, depths in left.items() if place not in found}
    return [found[place] for place in range(len(wanted))]


def _alike(depths: Mapping[int, int]) -> Iterable[list[int]]:
    """Places in groups of about the same depth.

    All of a group are searched for as deep as the deepest, which can cost far more than it needs.
    """
    groups: dict[int, list[int]] = {}
    for place, depth in depths.items():
        groups.setdefault(depth.bit_length(), []).append(place)
    return groups.values()


def _take(merged: Line, depth: int, wanted: Wanted, items: int) -> Line | None:
    """What is wanted of merged hits, of which the first `depth` are complete; None if too few."""
    rows, scores, interests = merged
    complete = rows[:depth]
    places = wanted.filter.first(complete, wanted.count)
    if len(places) < wanted.count and np.count_nonzero(complete > 0) < items:
        return None
    taken = np.array(places, dtype=np.intp)
    return rows.take(taken), scores.take(taken), interests.take(taken)


def look_at_all(
    vectors: NDArray[np.float32], interests: NDArray[np.float32], wanted: Wanted
) -> Line:
    """What is wanted for interests (K, D), by computing the score of every item that is allowed."""
    rows = wanted.filter.rows()
    if not len(rows):
        return rows, np.empty(0, np.float32), np.empty(0, np.int64)
    best = np.concatenate(
        [
            _scores(vectors, rows[first : first + _CHUNK], interests)
            for first in range(0, len(rows), _CHUNK)
        ]
    )
    leading, _ = leaders(best, _ERROR * float(np.abs(best).max()), wanted.count)
    ranked = merge(stack([score(vectors, rows.take(leading), interests)]))
    [line] = zip(*(field[:, : wanted.count] for field in ranked), strict=True)
    return line


def _scores(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], interests: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The best score of each of the rows, which rise."""
    first, last = int(rows[0]), int(rows[-1])
    if dense := last - first < _DENSE * len(rows):
        looked_at = vectors[first : last + 1]
    else:
        looked_at = vectors.take(rows, axis=0)
    scores: NDArray[np.float32] = (interests @ looked_at.T).max(axis=0)
    return scores.take(rows - first) if dense else scores

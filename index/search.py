"""The best items that are allowed: the index leaves out what is not, the ranking is cut."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.ann import ItemIndex
from index.filters import Filter
from index.merge import Line, merge


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
    interests: NDArray[np.float32],
    wanted: Sequence[Wanted],
    timings: Timings,
) -> list[Line]:
    """For each request, interests (B, K, D), what it wants: best first, ties to the lower row."""
    found: dict[int, Line] = {}
    for places in _alike([each.count for each in wanted]):
        asked = [wanted[place] for place in places]
        start = time.perf_counter()
        hits = index.search(
            interests if len(places) == len(interests) else interests[places],
            max(each.count for each in asked),
            [each.filter for each in asked],
        )
        searched = time.perf_counter()
        for place, each, line in zip(places, asked, zip(*merge(hits), strict=True), strict=True):
            found[place] = _first(line, each.count)
        timings.search += searched - start
        timings.merge += time.perf_counter() - searched
    return [found[place] for place in range(len(wanted))]


def _alike(counts: Sequence[int]) -> Iterable[list[int]]:
    """Places in groups of about the same count.

    All of a group are searched for as many as the greatest, which can cost far more than it needs.
    """
    groups: dict[int, list[int]] = {}
    for place, count in enumerate(counts):
        groups.setdefault(count.bit_length(), []).append(place)
    return groups.values()


def _first(merged: Line, count: int) -> Line:
    rows, scores, interests = merged
    found = min(count, int(np.count_nonzero(rows)))
    return rows[:found], scores[:found], interests[:found]

"""The best items that are allowed: the index leaves out what is not, the ranking is cut."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.ann import ItemIndex
from index.filters import Filter
from index.merge import Line, merge_line


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
) -> Iterator[tuple[int, Line]]:
    """The place of each request, interests (B, K, D), and what it wants: best first, ties to the
    lower row. In some order, and the work for each when it is asked for."""
    for places in _alike([each.count for each in wanted]):
        asked = [wanted[place] for place in places]
        lines = index.lines(
            interests if len(places) == len(interests) else interests[places],
            max(each.count for each in asked),
            [each.filter for each in asked],
        )
        for place, each in zip(places, asked, strict=True):
            start = time.perf_counter()
            line = next(lines)
            searched = time.perf_counter()
            rows, scores, found_by = merge_line(*line)
            first = slice(each.count)
            timings.search += searched - start
            timings.merge += time.perf_counter() - searched
            yield place, (rows[first], scores[first], found_by[first])


def _alike(counts: Sequence[int]) -> Iterable[list[int]]:
    """Places in groups of about the same count.

    All of a group are searched for as many as the greatest, which can cost far more than it needs.
    """
    groups: dict[int, list[int]] = {}
    for place, count in enumerate(counts):
        groups.setdefault(count.bit_length(), []).append(place)
    return groups.values()

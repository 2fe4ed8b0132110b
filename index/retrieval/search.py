"""The best items that are allowed: the index leaves out what is not, the ranking is cut."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.retrieval.filters import Filter, Filters
from index.retrieval.merge import Hits, QueryHits, merge_line


class ItemIndex(Protocol):
    """Item vectors that can be searched by inner product."""

    def search(self, interests: NDArray[np.float32], k: int, filters: Filters = None) -> Hits:
        """Hits among which are the k best items of each request, but for the approximation.

        interests (B, K, D), finite; an item's score is its best over the K. k at least 1; there
        may be more hits than k, and fewer where there are fewer items. Scores are exact.
        filters: one for each request; what it does not allow is not among the hits.
        """
        ...

    def iter_search(
        self, interests: NDArray[np.float32], k: int, filters: Filters = None
    ) -> Iterator[QueryHits]:
        """The same, one request after the other, most of the work for each when it is asked for."""
        ...

    def write(self, path: Path) -> None: ...


@dataclass(slots=True)
class Timings:
    """Seconds spent in each stage, added up over the calls it was handed to."""

    encode: float = 0.0
    search: float = 0.0
    merge: float = 0.0


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """The `count` best items that a filter allows, or all of them if they are fewer."""

    count: int
    filter: Filter


def search(
    index: ItemIndex,
    interests: NDArray[np.float32],
    wanted: Sequence[SearchRequest],
    timings: Timings,
) -> Iterator[tuple[int, QueryHits]]:
    """The place of each request, interests (B, K, D), and what it wants: best first, ties to the
    lower row. In some order, and the work for each when it is asked for."""
    for places in _alike([each.count for each in wanted]):
        asked = [wanted[place] for place in places]
        lines = index.iter_search(
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

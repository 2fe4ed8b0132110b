"""Search under filters: the index leaves out what is not allowed, and the ranking is cut to k."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.retrieval.filters import Filter, Filters
from index.retrieval.merge import Hits, QueryHits, merge_query_hits


class SearchUnavailableError(Exception):
    """The engine that holds the index cannot be reached, or did not answer in time.

    Its text holds neither an address nor a query; the cause does.
    """


class ItemIndex(Protocol):
    """Item vectors that can be searched by inner product."""

    def search(self, interests: NDArray[np.float32], k: int, filters: Filters = None) -> Hits:
        """Hits that include the k best items of each request, up to the index's approximation.

        interests (B, K, D), finite; an item's score is its best over the K. k is at least 1; there
        may be more hits than k, and fewer if there are fewer items. Scores are exact.
        filters: one for each request; no hit is an item that its filter excludes.
        """
        ...

    def iter_search(
        self, interests: NDArray[np.float32], k: int, filters: Filters = None
    ) -> Iterator[QueryHits]:
        """As search, one request after the other; most work is done when its hits are consumed."""
        ...


@dataclass(slots=True)
class Timings:
    """Seconds spent in each stage, summed over the calls that were given this object."""

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
    requests: Sequence[SearchRequest],
    timings: Timings,
) -> Iterator[tuple[int, QueryHits]]:
    """The position of each request with its hits: best first, ties to the lower row.

    interests (B, K, D), one for each request. Positions come in any order; the work for a request
    is done when its hits are consumed.
    """
    for positions in _group_by_count([request.count for request in requests]):
        group = [requests[position] for position in positions]
        results = index.iter_search(
            interests if len(positions) == len(interests) else interests[positions],
            max(request.count for request in group),
            [request.filter for request in group],
        )
        for position, request in zip(positions, group, strict=True):
            start = time.perf_counter()
            hits = next(results)
            searched = time.perf_counter()
            rows, scores, found_by = merge_query_hits(*hits)
            best = slice(request.count)
            timings.search += searched - start
            timings.merge += time.perf_counter() - searched
            yield position, (rows[best], scores[best], found_by[best])


def _group_by_count(counts: Sequence[int]) -> Iterable[list[int]]:
    """Positions in groups of similar counts.

    A group is searched with its largest count, which can be far more than a request needs.
    """
    groups: dict[int, list[int]] = {}
    for position, count in enumerate(counts):
        groups.setdefault(count.bit_length(), []).append(position)
    return groups.values()

"""The best items that filters allow: of a user's interests, or of all users."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.retrieval.delta import Delta, merge_delta_hits
from index.retrieval.filters import Filter
from index.retrieval.merge import QueryHits
from index.retrieval.search import ItemIndex, SearchRequest, Timings, search

# For each filter, the `count` best of the items that it allows, best first.
Rank = Callable[[Sequence[Filter], int], list[QueryHits]]


@dataclass(frozen=True)
class InterestRanking:
    """By the best score over the interests (K, D) of one query.

    catalog_size: N.
    """

    index: ItemIndex
    interests: NDArray[np.float32]
    timings: Timings
    catalog_size: int
    delta: Delta | None

    def __call__(self, filters: Sequence[Filter], count: int) -> list[QueryHits]:
        requests = [SearchRequest(count, allowed) for allowed in filters]
        interests = np.repeat(self.interests[None], len(filters), axis=0)
        found = dict(search(self.index, interests, requests, self.timings))
        return [
            self.with_delta(found[position], request) for position, request in enumerate(requests)
        ]

    def with_delta(self, hits: QueryHits, request: SearchRequest) -> QueryHits:
        """The best of the catalogue's hits and the delta's."""
        allowed = request.filter.beside
        if self.delta is None or allowed is None:
            return hits
        start = time.perf_counter()
        delta_hits = self.delta.search(self.interests, allowed, request.count, self.catalog_size)
        merged = merge_delta_hits(hits, delta_hits, request.count)
        self.timings.merge += time.perf_counter() - start
        return merged


@dataclass(frozen=True)
class PopularityRanking:
    """By popularity (N,), whatever the interests: of none, -1. Nobody has taken a delta's items."""

    popularity: NDArray[np.int64]

    def __call__(self, filters: Sequence[Filter], count: int) -> list[QueryHits]:
        return [self._best(allowed, count) for allowed in filters]

    def _best(self, allowed: Filter, count: int) -> QueryHits:
        rows = allowed.most_popular(count)
        scores = self.popularity[rows - 1].astype(np.float32)
        if allowed.beside is not None and len(rows) < count:
            new = len(self.popularity) + allowed.beside.most_popular(count - len(rows))
            rows = np.concatenate((rows, new))
            scores = np.concatenate((scores, np.zeros(len(new), np.float32)))
        return rows, scores, np.full(len(rows), -1)

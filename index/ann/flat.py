"""Exact search: every item's score nearly, then exactly for the few that can be best."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch as _torch  # noqa: F401  # isort: skip  (before faiss)
import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann.quantization import RoundedMatrix, round_interests
from index.retrieval.filters import Filter, Filters
from index.retrieval.merge import Hits, QueryHits, stack_hits

BATCH = 32  # requests at a time, at the most
# Scores at a time: so many are computed in a few milliseconds and take a few MB.
_SCORES = 1 << 20
_FEW = 0.25  # of all items: so many are sooner picked out than looked at with the others
_BLOCKS = 32  # that scores are cut into, to find out which are too low to be of the k best


class FlatIndex:
    """Every item is compared with every interest. Any number of threads may search."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        """vectors (N + 1, D), row 0 padding; may be memory-mapped."""
        self._vectors = np.asarray(vectors)
        self._items = RoundedMatrix(self._vectors[1:])

    def search(self, interests: NDArray[np.float32], k: int, filters: Filters = None) -> Hits:
        return stack_hits([*self.iter_search(interests, k, filters)])

    def iter_search(
        self, interests: NDArray[np.float32], k: int, filters: Filters = None
    ) -> Iterator[QueryHits]:
        asked = filters or [None] * len(interests)
        together = max(1, min(BATCH, _SCORES // max(1, len(self._items))))
        for first in range(0, len(interests), together):
            part = slice(first, first + together)
            yield from self._iter_search(interests[part], k, asked[part])

    def _iter_search(
        self, interests: NDArray[np.float32], k: int, filters: Sequence[Filter | None]
    ) -> Iterator[QueryHits]:
        scans = [not each or each.passing >= _FEW * len(self._items) for each in filters]
        scanned = self._scan(interests[scans])
        for request, scan, allowed in zip(interests, scans, filters, strict=True):
            if allowed and not scan:
                yield self._pick(request, k, allowed)
                continue
            scores, error = next(scanned)
            if allowed:
                allowed.mask_scores(scores)
            places, _ = top_candidates(scores, error, k)
            yield score(self._vectors, places + 1, request)

    def _scan(self, interests: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.float32], float]]:
        """For each request, the scores of all items, and how far they are off."""
        if len(interests):
            rounded = round_interests(interests)
            maxima, errors = self._items.maxima(rounded), self._items.errors(rounded)
            yield from zip(maxima, errors, strict=True)

    def _pick(self, interests: NDArray[np.float32], k: int, allowed: Filter) -> QueryHits:
        """By looking at those that are allowed."""
        rows = allowed.rows()
        if len(rows) > k:
            rounded = round_interests(interests[None])
            [scores] = self._items.maxima(rounded, rows - 1)
            [error] = self._items.errors(rounded)
            rows = rows.take(top_candidates(scores, error, k)[0])
        return score(self._vectors, rows, interests)

    @property
    def faiss_index(self) -> faiss.Index:
        """What faiss searches to the same end; the row of an item is its place there + 1."""
        index = faiss.IndexFlatIP(self._vectors.shape[1])
        index.add(self._vectors[1:])
        return index

    def write(self, path: Path) -> None:
        faiss.write_index(self.faiss_index, str(path))


def top_candidates(
    scores: NDArray[np.float32], error: float, k: int
) -> tuple[NDArray[np.int64], float]:
    """Places of scores (M,), each off by `error` at most: all that can be of the k best.

    And the k-th best of the scores as they are; minus infinity where there are fewer than k. What
    scores minus infinity is left out.
    """
    bar = _kth_best(scores, k)
    if bar == -np.inf:
        return np.flatnonzero(scores > bar), bar
    # The k that look best are truly bar - error or better. So is the true k-th best, which looks
    # like bar - 2 error at worst.
    return np.flatnonzero(scores >= bar - 2 * error), bar


def _kth_best(scores: NDArray[np.float32], k: int) -> float:
    """Minus infinity where fewer than k are above it."""
    width, low = len(scores) // _BLOCKS, -np.inf
    if width > 2 * k:
        # The best of the blocks' first scores, of their second, and so on are `width` scores: what
        # is lower than the k-th best of these is not among the k best of all.
        best = scores[: width * _BLOCKS].reshape(_BLOCKS, width).max(axis=0)
        low = float(np.partition(best, -k)[-k])
    # With many that are equal, as those at minus infinity are, partitioning is slow.
    rivals = scores[scores > low] if low == -np.inf else scores[scores >= low]
    return float(np.partition(rivals, -k)[-k]) if k <= len(rivals) else -np.inf


def score(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], interests: NDArray[np.float32]
) -> QueryHits:
    """Rows, each with its best inner product with the interests (K, D), and which of them it is."""
    products = interests @ vectors.take(rows, axis=0).T
    return rows, products.max(axis=0), products.argmax(axis=0)

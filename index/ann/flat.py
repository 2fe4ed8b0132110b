"""Exact search: approximate scores of all items, then exact scores of the top candidates.

A native kernel does both in one pass over the items, request by request; others take a batch.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeGuard

import torch as _torch  # noqa: F401  # isort: skip  (before faiss)
import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann import native
from index.ann.kernel_choice import find_kernel
from index.ann.kernels import Kernel, Native
from index.ann.quantization import QuantizedMatrix
from index.ann.selection import score_rows, top_candidates
from index.retrieval.filters import Filter, Filters
from index.retrieval.merge import Hits, QueryHits, stack_hits

MAX_BATCH = 32  # requests
SCORES_PER_BATCH = 1 << 20  # they take a few milliseconds and a few MB
_SELECTIVE = 0.25  # of all items: below it, scoring only the allowed items is faster


class FlatIndex:
    """Compares every item with every interest. Any number of threads may search."""

    def __init__(
        self,
        vectors: NDArray[np.float32],
        kernel: Kernel | None = None,
        scores_per_batch: int = SCORES_PER_BATCH,
    ) -> None:
        """vectors (N + 1, D), row 0 padding; may be memory-mapped.

        kernel: of the products; by default the fastest on this processor.
        scores_per_batch: more take more memory, and less time a request: each batch reads all
        items once.
        """
        self._vectors = np.ascontiguousarray(vectors)
        self.kernel = kernel or find_kernel()
        self._scores_per_batch = scores_per_batch
        self._items = QuantizedMatrix(self._vectors[1:], self.kernel)
        self._packed: native.Items | None = None
        if isinstance(self._items.kernel, Native) and len(self._items):
            self._isa = self._items.kernel.isa
            packed, largest = self._items.packed_bytes(), self._items.largest()
            self._packed = native.Items(self._vectors[1:], *packed, *largest)

    def search(self, interests: NDArray[np.float32], k: int, filters: Filters = None) -> Hits:
        return stack_hits([*self.iter_search(interests, k, filters)])

    def iter_search(
        self, interests: NDArray[np.float32], k: int, filters: Filters = None
    ) -> Iterator[QueryHits]:
        filters = filters or [None] * len(interests)
        if self._packed is not None:
            for request, allowed in zip(interests, filters, strict=True):
                if self._is_selective(allowed):
                    yield self._search_allowed(request, k, allowed)
                else:
                    yield self._search_packed(request, k, allowed)
            return
        batch_size = max(1, min(MAX_BATCH, self._scores_per_batch // max(1, len(self._items))))
        for start in range(0, len(interests), batch_size):
            batch = slice(start, start + batch_size)
            yield from self._iter_search_batch(interests[batch], k, filters[batch])

    def _iter_search_batch(
        self, interests: NDArray[np.float32], k: int, filters: Sequence[Filter | None]
    ) -> Iterator[QueryHits]:
        scanned = self._scan(interests[[not self._is_selective(each) for each in filters]])
        for request, allowed in zip(interests, filters, strict=True):
            if self._is_selective(allowed):
                yield self._search_allowed(request, k, allowed)
                continue
            scores, error = next(scanned)
            if allowed:
                allowed.mask_scores(scores)
            positions, _ = top_candidates(scores, error, k)
            yield score_rows(self._vectors, positions + 1, request)

    def _is_selective(self, allowed: Filter | None) -> TypeGuard[Filter]:
        return allowed is not None and allowed.passing < _SELECTIVE * len(self._items)

    def _search_packed(
        self, interests: NDArray[np.float32], k: int, allowed: Filter | None
    ) -> QueryHits:
        assert self._packed is not None, "only called where it was packed; this is a bug"
        request, row_filter = native.Request(interests, k), native.RowFilter(allowed)
        rows = native.search_all(self._isa, request, self._packed, row_filter)
        return score_rows(self._vectors, rows, interests)

    def _scan(self, interests: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.float32], float]]:
        """For each request, the approximate scores of all items and a bound on their error."""
        if len(interests):
            quantized = self._items.quantize(interests)
            maxima, errors = self._items.maxima(quantized), self._items.error_bounds(quantized)
            yield from zip(maxima, errors, strict=True)

    def _search_allowed(self, interests: NDArray[np.float32], k: int, allowed: Filter) -> QueryHits:
        """Search that scores only the allowed items."""
        rows = allowed.rows()
        if len(rows) > k:
            quantized = self._items.quantize(interests[None])
            [scores] = self._items.maxima_at(quantized, rows - 1)
            [error] = self._items.error_bounds(quantized)
            rows = rows.take(top_candidates(scores, error, k)[0])
        return score_rows(self._vectors, rows, interests)

    @property
    def faiss_index(self) -> faiss.Index:
        """An equivalent faiss index; the item at its position p has row p + 1."""
        index = faiss.IndexFlatIP(self._vectors.shape[1])
        index.add(self._vectors[1:])
        return index

    def write(self, path: Path) -> None:
        faiss.write_index(self.faiss_index, str(path))

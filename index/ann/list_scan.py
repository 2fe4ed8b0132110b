"""Candidates of a request from a head and lists: compiled, or by numpy and faiss."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch as _torch  # noqa: F401  # isort: skip  (before faiss)
import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann import native
from index.ann.kernels import Kernel, Native
from index.ann.list_codec import ByteCodec, ListCodec
from index.ann.quantization import QuantizedMatrix
from index.ann.selection import kth_best, top_candidates
from index.retrieval.filters import Filter

# A filter that lowers the threshold removes items of the head. More of the answer then lies in
# lists, where some items are always missed. So the threshold for probing is lowered further, by
# this factor times the drop.
_FILTER_CAUTION = 2.0


class ListScan(Protocol):
    def candidates(
        self,
        interests: NDArray[np.float32],
        upper_bounds: NDArray[np.float32],
        k: int,
        filters: Sequence[Filter | None],
    ) -> Iterator[NDArray[np.int64] | None]:
        """For each request, allowed rows that include the k best, ascending and distinct.

        interests (B, K, D). upper_bounds (B, K, lists): assumed best score of a list for an
        interest; a list is scanned for it if that exceeds the k-th best score so far. None if the
        head has fewer than k items that are allowed, or comparing every item is faster.
        """
        ...


def make_scan(
    head: NDArray[np.int64],
    vectors: NDArray[np.float32],
    lists: faiss.IndexIVF,
    sizes: NDArray[np.int64],
    codec: ListCodec,
    kernel: Kernel,
) -> ListScan:
    """head: rows of the vectors (N + 1, D). sizes (lists,).

    Lists in half precision, of older releases, are scanned by faiss.
    """
    matrix = QuantizedMatrix(vectors[head], kernel, block_size=len(head))
    if isinstance(matrix.kernel, Native) and isinstance(codec, ByteCodec) and len(head):
        return NativeScan(head, matrix, lists, sizes, codec, matrix.kernel)
    return FaissScan(head, matrix, lists, sizes, codec)


class FaissScan:
    """Every list whose bound exceeds the head's k-th best score, for one interest at a time."""

    def __init__(
        self,
        head: NDArray[np.int64],
        matrix: QuantizedMatrix,
        lists: faiss.IndexIVF,
        sizes: NDArray[np.int64],
        codec: ListCodec,
    ) -> None:
        self._head, self._matrix, self._sizes, self._codec = head, matrix, sizes, codec
        self._lists: Any = lists  # faiss's stub has the signature of the C++ method

    def candidates(
        self,
        interests: NDArray[np.float32],
        upper_bounds: NDArray[np.float32],
        k: int,
        filters: Sequence[Filter | None],
    ) -> Iterator[NDArray[np.int64] | None]:
        quantized = self._matrix.quantize(interests)
        head_scores = self._matrix.maxima(quantized)
        errors = self._matrix.error_bounds(quantized)
        requests = zip(interests, upper_bounds, head_scores, errors, filters, strict=True)
        for request, bounds, scores, error, allowed in requests:
            positions, threshold, unfiltered = self._search_head(scores, error, allowed, k)
            if threshold == -np.inf:
                yield None
                continue
            caution = _FILTER_CAUTION * (unfiltered - threshold)
            pairs = np.flatnonzero(bounds > threshold - caution)
            interest_ids, list_ids = np.divmod(pairs, bounds.shape[1])
            if self._sizes.take(list_ids).sum() > self._sizes.sum():
                yield None
                continue
            rows = self._head.take(positions)
            if len(pairs):
                probed = self._probe(request, interest_ids, list_ids, threshold - error)
                rows = _sorted_unique(np.concatenate([rows, probed]))
                rows = allowed.filter_rows(rows) if allowed else rows
            yield rows

    def _search_head(
        self, scores: NDArray[np.float32], error: float, allowed: Filter | None, k: int
    ) -> tuple[NDArray[np.int64], float, float]:
        """Positions of candidates in the head, the threshold, and what it were without the filter.

        scores: of the head; changed.
        """
        replaced = allowed.exclude(scores, self._head) if allowed else None
        candidates, threshold = top_candidates(scores, error, k)
        if not allowed:
            return candidates, threshold, threshold
        if replaced is None:
            unfiltered = threshold
            allowed.mask_scores(scores, self._head)
            candidates, threshold = top_candidates(scores, error, k)
        elif len(replaced):
            # Without the filter, the k best were among these.
            unfiltered = kth_best(np.concatenate([scores.take(candidates), replaced]), k)
        else:
            unfiltered = threshold
        return candidates, threshold, unfiltered

    def _probe(
        self,
        interests: NDArray[np.float32],
        interest_ids: NDArray[np.int64],
        list_ids: NDArray[np.int64],
        threshold: float,
    ) -> NDArray[np.int64]:
        """Rows of list list_ids[i] (P,) whose product with its interest may exceed the threshold.

        interests (K, D); interest_ids (P,).
        """
        codes, radius = self._codec.queries(interests, threshold)
        queries = codes.take(interest_ids, axis=0)
        _, _, rows = self._lists.range_search_preassigned(queries, radius, list_ids[:, None], None)
        found: NDArray[np.int64] = rows
        return found


class NativeScan:
    """The same lists, each for all its interests at once; what is found raises the threshold."""

    def __init__(
        self,
        head: NDArray[np.int64],
        matrix: QuantizedMatrix,
        lists: faiss.IndexIVF,
        sizes: NDArray[np.int64],
        codec: ByteCodec,
        kernel: Native,
    ) -> None:
        self._isa, self._items = kernel.isa, len(head) + int(sizes.sum())
        self._mapped = lists  # holds the memory of the lists
        inverted = lists.invlists
        assert inverted is not None, "an index that was built or read has lists; this is a bug"
        numbers = range(lists.nlist)
        self._head = native.Head(*matrix.packed_bytes(), head, *matrix.largest())
        self._lists = native.Lists(
            [int(inverted.get_codes(i) or 0) for i in numbers],  # None if it is empty
            [int(inverted.get_ids(i) or 0) for i in numbers],
            sizes,
            lists.d,
            *(1 / float(codec.scale), codec.norm, codec.vector_error(lists.d)),
        )

    def candidates(
        self,
        interests: NDArray[np.float32],
        upper_bounds: NDArray[np.float32],
        k: int,
        filters: Sequence[Filter | None],
    ) -> Iterator[NDArray[np.int64] | None]:
        for request, bounds, allowed in zip(interests, upper_bounds, filters, strict=True):
            yield native.search(
                self._isa,
                native.Request(request, k, bounds, _FILTER_CAUTION),
                self._head,
                self._lists,
                native.RowFilter(allowed),
                self._items,
            )


def _sorted_unique(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """np.unique at half its cost; sorts the argument in place."""
    rows.sort()
    is_first = np.empty(len(rows), dtype=bool)
    is_first[:1] = True
    np.not_equal(rows[1:], rows[:-1], out=is_first[1:])
    return rows[is_first]

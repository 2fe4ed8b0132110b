"""Scanning lists for the interests of a request: compiled, or by faiss."""

from typing import Any, NamedTuple, Protocol

import torch as _torch  # noqa: F401  # isort: skip  (before faiss)
import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann import native
from index.ann.kernels import Kernel, Native
from index.ann.list_codec import ByteCodec, ListCodec
from index.retrieval.filters import Filter

_LARGEST_PRODUCT = 1 << 29  # more than any; twice that fits into 32 bits


class ListRequest(NamedTuple):
    """What is asked of the lists, once the head was searched.

    interests (K, D). upper_bounds (K, lists): assumed best score of a list for an interest.
    best (k,): approximate scores of the best items of the head, each wrong by `error` at most.
    caution: a list is scanned if its bound exceeds the k-th best score less this.
    """

    interests: NDArray[np.float32]
    upper_bounds: NDArray[np.float32]
    best: NDArray[np.float32]
    error: float
    caution: float
    allowed: Filter | None


class ListScan(Protocol):
    def rows(self, request: ListRequest) -> NDArray[np.int64] | None:
        """Rows of items that may be among the k best, some perhaps twice, in no order.

        None if that would take longer than to compare every item.
        """
        ...


def make_scan(lists: faiss.IndexIVF, codec: ListCodec, kernel: Kernel, sizes: Any) -> ListScan:
    """sizes (lists,): of the lists. Half precision, of older releases, is scanned by faiss."""
    if isinstance(kernel, Native) and isinstance(codec, ByteCodec) and kernel.fits(lists.d):
        return NativeScan(lists, codec, kernel, sizes)
    return FaissScan(lists, codec, sizes)


class FaissScan:
    """Every list whose bound exceeds the head's k-th best score, one (interest, list) at a time."""

    def __init__(self, lists: faiss.IndexIVF, codec: ListCodec, sizes: NDArray[np.int64]) -> None:
        self._lists: Any = lists  # faiss's stub has the signature of the C++ method
        self._codec, self._sizes = codec, sizes

    def rows(self, request: ListRequest) -> NDArray[np.int64] | None:
        threshold = float(request.best.min())
        pairs = np.flatnonzero(request.upper_bounds > threshold - request.caution)
        interest_ids, list_ids = np.divmod(pairs, len(self._sizes))
        if self._sizes.take(list_ids).sum() > self._sizes.sum():
            return None
        if not len(pairs):
            return np.empty(0, np.int64)
        codes, radius = self._codec.queries(request.interests, threshold - request.error)
        queries = codes.take(interest_ids, axis=0)
        _, _, rows = self._lists.range_search_preassigned(queries, radius, list_ids[:, None], None)
        found: NDArray[np.int64] = rows
        return found


class NativeScan:
    """The list of the highest bound first, for all interests at once.

    What is found raises the threshold, and ends the scan when no bound exceeds it.
    """

    def __init__(
        self, lists: faiss.IndexIVF, codec: ByteCodec, kernel: Native, sizes: NDArray[np.int64]
    ) -> None:
        self._lists, self._codec, self._kernel = lists, codec, kernel
        inverted = lists.invlists
        assert inverted is not None, "an index that was built or read has lists; this is a bug"
        numbers = range(lists.nlist)
        # An empty list has no address.
        self._sizes = sizes
        self._parts = native.Lists(
            [int(inverted.get_codes(i) or 0) for i in numbers],
            [int(inverted.get_ids(i) or 0) for i in numbers],
            sizes,
            lists.d,
        )

    def rows(self, request: ListRequest) -> NDArray[np.int64] | None:
        best_bounds = request.upper_bounds.max(axis=0)
        lowest = float(request.best.min()) - request.caution
        order = np.flatnonzero(best_bounds > lowest)
        if not len(order):
            return order
        order = order.take((-best_bounds.take(order)).argsort())
        queries = self._codec.quantize(request.interests, native.MAX_QUERY_CODE)
        limit = _LARGEST_PRODUCT
        heap = np.sort(np.clip(request.best * np.float32(queries.unit), -limit, limit))
        # A listed item's product is wrong by `bound`, the k-th best score by that or `error`.
        slack = (queries.bound + max(queries.bound, request.error)) * queries.unit
        return native.scan_lists(
            self._kernel.isa,
            self._parts,
            native.RowFilter(request.allowed),
            queries.codes,
            request.upper_bounds * np.float32(queries.unit),
            order,
            items=int(self._sizes.take(order).sum()),
            caution=min(request.caution * queries.unit, limit),
            slack=min(int(slack) + 1, limit),
            best=np.floor(heap).astype(np.int32),
        )

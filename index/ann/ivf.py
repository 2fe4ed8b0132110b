"""Approximate search: a head of items scanned for every request, and lists probed where it pays.

The head holds the items with the highest demand, or else the longest vectors. Its k-th best score
is the threshold that any other item must exceed. The other items lie in lists by k-means under L2:
k-means under the inner product would assign most items to a few lists with long centroids. All K
interests of a request share the threshold, so they probe different numbers of lists: every
(interest, list) pair whose upper bound exceeds the threshold is probed.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path

import torch as _torch  # noqa: F401  # isort: skip  (before faiss)
import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann.exact_scans import count_exact_scan
from index.ann.flat import MAX_BATCH, FlatIndex
from index.ann.kernel_choice import find_kernel
from index.ann.kernels import FLOAT32, Kernel
from index.ann.list_codec import HalfCodec, ListCodec, codec_of, fill_lists
from index.ann.list_scan import make_scan
from index.ann.selection import score_best, score_rows
from index.retrieval.filters import Filter, Filters
from index.retrieval.merge import Hits, QueryHits, stack_hits

_EXACT_IN_FLOAT32_FROM = 1 << 21  # items
_MEAN_TOLERANCE = 1e-3  # of the largest component: other processors sum in another order


class IvfIndex:
    """A head and lists. Any number of threads may search.

    faiss_index: the lists, which hold every row that is not in the head.
    """

    def __init__(
        self,
        lists: faiss.IndexIVF,
        vectors: NDArray[np.float32],
        margin: float,
        check: int = 0,
        kernel: Kernel | None = None,
    ) -> None:
        """vectors (N + 1, D), row 0 padding; may be memory-mapped.

        margin: assumed gap between a list's mean and its best item for an interest, in standard
        deviations of its items; a larger margin probes more lists.
        check: verify that the lists hold these vectors of their rows; n: each n-th list, 0: none.
        kernel: of the products; by default the fastest on this processor.
        Raises ValueError if the lists do not fit these vectors.
        """
        self.faiss_index = lists
        lists.nprobe = 1
        lists.parallel_mode = 1  # parallel over the lists of one query: everything on this thread
        self._vectors = np.asarray(vectors)
        rows, self._list_sizes = _rows_by_list(lists)
        self.head = _rows_not_in_lists(rows, len(vectors))
        means = lists.quantizer.reconstruct_n(0, lists.nlist)
        self._codec = codec_of(lists, self._vectors, rows)
        if check:
            by_list = np.split(rows, np.cumsum(self._list_sizes)[:-1])
            _check(lists, by_list, means, self._vectors, self._codec, check)
        self.kernel = kernel or find_kernel()
        self._scan = make_scan(
            self.head, self._vectors, lists, self._list_sizes, self._codec, self.kernel
        )
        self._means = means
        squared_norms = np.vecdot(self._vectors, self._vectors).take(rows)
        self._deviations = _standard_deviations(squared_norms, self._list_sizes, means)
        self._probe_margin = np.float32(margin) * self._deviations
        self._exact: FlatIndex | None = None

    def with_margin(self, margin: float) -> "IvfIndex":
        """The same index with another margin; everything else is shared."""
        index = copy(self)
        index._probe_margin = np.float32(margin) * self._deviations
        return index

    def exact(self) -> FlatIndex:
        """An exact index over the same vectors. The first call builds it, which takes long.

        Of many items it multiplies the vectors themselves, which all processes share: each would
        need seconds, and memory of its own, to pack them as bytes for a scan that is rare.
        """
        if self._exact is None:
            is_large = len(self._vectors) > _EXACT_IN_FLOAT32_FROM
            self._exact = FlatIndex(self._vectors, FLOAT32 if is_large else self.kernel)
        return self._exact

    def search(self, interests: NDArray[np.float32], k: int, filters: Filters = None) -> Hits:
        """Exact if the head has fewer than k allowed items, or faiss would scan over N items."""
        return stack_hits([*self.iter_search(interests, k, filters)])

    def iter_search(
        self, interests: NDArray[np.float32], k: int, filters: Filters = None
    ) -> Iterator[QueryHits]:
        filters = filters or [None] * len(interests)
        for start in range(0, len(interests), MAX_BATCH):
            batch = slice(start, start + MAX_BATCH)
            yield from self._iter_search_batch(interests[batch], k, filters[batch])

    def _iter_search_batch(
        self, interests: NDArray[np.float32], k: int, filters: Sequence[Filter | None]
    ) -> Iterator[QueryHits]:
        scanned = [i for i, each in enumerate(filters) if each is None or not each.passes_few]
        all_scanned = len(scanned) == len(interests)
        candidates = self._candidates(
            interests if all_scanned else interests[scanned], k, [filters[i] for i in scanned]
        )
        for request, allowed in zip(interests, filters, strict=True):
            if allowed is not None and allowed.passes_few:
                yield score_best(self._vectors, allowed.rows(), request, k)
            elif (rows := next(candidates)) is None:
                count_exact_scan()
                yield from self.exact().iter_search(request[None], k, [allowed])
            else:
                yield score_rows(self._vectors, rows, request)

    def _candidates(
        self, interests: NDArray[np.float32], k: int, filters: Sequence[Filter | None]
    ) -> Iterator[NDArray[np.int64] | None]:
        norms = np.sqrt(np.vecdot(interests, interests))
        # (B, K, lists): assumed best score of a list's items for an interest
        upper_bounds = interests @ self._means.T
        upper_bounds += norms[:, :, None] * self._probe_margin
        return self._scan.candidates(interests, upper_bounds, k, filters)

    def half_precision_lists(self) -> faiss.IndexIVF:
        """The same lists in half precision, as a GPU can scan them. Takes long."""
        rows, sizes = _rows_by_list(self.faiss_index)
        means = self.faiss_index.quantizer.reconstruct_n(0, len(sizes))
        list_ids = np.repeat(np.arange(len(sizes)), sizes)
        return fill_lists(HalfCodec(), means, self._vectors, rows, list_ids)

    def write(self, path: Path) -> None:
        faiss.write_index(self.faiss_index, str(path))


def _rows_by_list(lists: faiss.IndexIVF) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of all lists, one list after the other, and the size of each list."""
    inverted = lists.invlists
    assert inverted is not None, "an index that was built or read has lists; this is a bug"
    sizes = np.array([inverted.list_size(list_id) for list_id in range(lists.nlist)])
    rows = [
        faiss.rev_swig_ptr(inverted.get_ids(list_id), int(size))
        for list_id, size in enumerate(sizes)
        if size
    ]
    return np.concatenate([np.empty(0, np.int64), *rows]), sizes


def _check(
    lists: faiss.IndexIVF,
    rows: Sequence[NDArray[np.int64]],
    means: NDArray[np.float32],
    vectors: NDArray[np.float32],
    codec: ListCodec,
    every: int,
) -> None:
    """Raises ValueError unless the lists hold the vectors of their rows, and their means.

    rows, means: of each list. every: 1 to check all lists, n for each n-th. Checks one list at a
    time, to bound the memory.
    """
    for list_id in range(0, len(rows), every):
        list_rows = rows[list_id]
        members = vectors[list_rows]
        codes = _list_codes(lists, list_id, len(list_rows), codec)
        if np.abs(codes - codec.stored(members)).max(initial=0) > codec.tolerance:
            raise ValueError("lists: not the vectors of their rows; build the index again")
        mean = members.sum(axis=0) / max(len(members), 1)
        tolerance = _MEAN_TOLERANCE * np.abs(members).max(initial=0)
        if not np.abs(means[list_id] - mean).max() <= tolerance:
            raise ValueError("lists: a mean that is not of its members; build the index again")


def _list_codes(
    lists: faiss.IndexIVF, list_id: int, size: int, codec: ListCodec
) -> NDArray[np.int32]:
    """The stored codes of a list's members (size, D)."""
    inverted = lists.invlists
    assert inverted is not None, "an index that was built or read has lists; this is a bug"
    if not size:
        return np.empty((0, lists.d), np.int32)
    codes = faiss.rev_swig_ptr(inverted.get_codes(list_id), size * lists.code_size)
    return codes.view(codec.dtype).reshape(size, lists.d).astype(np.int32)


def _rows_not_in_lists(rows: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Those of 1..total - 1 that are not among the rows. Raises ValueError for invalid rows."""
    if len(rows) and not 0 < rows.min() <= rows.max() < total:
        raise ValueError(f"lists: a row that is no item; the items are 1 to {total - 1:,}")
    counts = np.bincount(rows, minlength=total)
    if counts.max() > 1:
        raise ValueError("lists: a row appears twice; rows must be unique")
    return np.flatnonzero(counts == 0)[1:]


def _standard_deviations(
    squared_norms: NDArray[np.float32], sizes: NDArray[np.int64], means: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(lists,): standard deviation of one component of each list's members.

    squared_norms: of the members, list after list.
    """
    list_ids = np.repeat(np.arange(len(sizes)), sizes)
    sums = np.bincount(list_ids, squared_norms, minlength=len(sizes))
    # E|x - m|^2 = E|x|^2 - |m|^2
    variances = sums / np.maximum(sizes, 1) - np.vecdot(means, means)
    deviations: NDArray[np.float32] = np.sqrt(np.maximum(variances, 0) / means.shape[1])
    return deviations.astype(np.float32)

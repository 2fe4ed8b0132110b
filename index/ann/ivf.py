"""Approximate search: a head of items scanned for every request, and lists probed where it pays.

The head holds the items that requests are answered with most, or else the longest: their k-th best
score is the bar that any other item must pass. The others lie in lists, by k-means under L2: under
the inner product, a few long vectors would draw everything to their lists. All K interests of a
request share the bar, so they do not probe equally: probed are those (interest, list) pairs that
may hold something above it, be they many or none.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch as _torch  # noqa: F401  # isort: skip  (before faiss)
import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann.flat import BATCH, FlatIndex, score, top_candidates
from index.ann.quantization import RoundedMatrix, round_interests
from index.retrieval.filters import Filter, Filters
from index.retrieval.merge import Hits, QueryHits, stack_hits

# A filter that brings the bar down takes from the head, so that more of the answer lies in lists,
# where some is always missed. So lists are probed that hope for less than the bar: by how much it
# came down, times this.
_CAUTION = 2.0
_MEAN_TOLERANCE = 1e-3  # of the largest component: another processor may sum in another order


class IvfIndex:
    """A head and lists. Any number of threads may search.

    faiss_index: the lists, which hold every row but those of the head.
    """

    def __init__(
        self,
        lists: faiss.IndexIVF,
        vectors: NDArray[np.float32],
        margin: float,
        check: bool = False,
    ) -> None:
        """vectors (N + 1, D), row 0 padding; may be memory-mapped.

        margin: how far above a list's middle its best item for an interest is taken to lie, in
        standard deviations of its items; the larger, the more lists are probed.
        check: whether the lists hold what these vectors make of their rows.
        Raises ValueError if the lists are not over these vectors.
        """
        self.faiss_index = lists
        lists.nprobe = 1
        lists.parallel_mode = 1  # over the lists of a query, which is one: all stays on this thread
        self._vectors = np.asarray(vectors)
        rows, self._sizes = _members(lists)
        self.head = _others(rows, len(vectors))
        means = lists.quantizer.reconstruct_n(0, lists.nlist)
        if check:
            _check(lists, np.split(rows, np.cumsum(self._sizes)[:-1]), means, self._vectors)
        self._scanned = RoundedMatrix(np.concatenate([self._vectors[self.head], means]))
        squares = np.vecdot(self._vectors, self._vectors).take(rows)
        self._deviations = _deviations(squares, self._sizes, means)
        self._reach = np.float32(margin) * self._deviations
        self._exact: FlatIndex | None = None

    def with_margin(self, margin: float) -> "IvfIndex":
        """The same index with another margin; the two share all else."""
        other = copy(self)
        other._reach = np.float32(margin) * self._deviations
        return other

    def exact(self) -> FlatIndex:
        """What looks at all items. Made on the first call, which takes long."""
        if self._exact is None:
            self._exact = FlatIndex(self._vectors)
        return self._exact

    def search(self, interests: NDArray[np.float32], k: int, filters: Filters = None) -> Hits:
        """Where the head has no bar, or lists come to more than all items, all are looked at."""
        return stack_hits([*self.iter_search(interests, k, filters)])

    def iter_search(
        self, interests: NDArray[np.float32], k: int, filters: Filters = None
    ) -> Iterator[QueryHits]:
        asked = filters or [None] * len(interests)
        for first in range(0, len(interests), BATCH):
            part = slice(first, first + BATCH)
            yield from self._iter_search(interests[part], k, asked[part])

    def _iter_search(
        self, interests: NDArray[np.float32], k: int, filters: Sequence[Filter | None]
    ) -> Iterator[QueryHits]:
        rounded = round_interests(interests)
        head, lists = slice(len(self.head)), slice(len(self.head), None)
        products = self._scanned.products(rounded)
        maxima = products[:, :, head].max(axis=1) * self._scanned.scale(rounded, head)
        # (B, K, lists): the best score that a list may hold for an interest
        hopes = products[:, :, lists].astype(np.float32)
        hopes *= self._scanned.scale(rounded, lists)[:, None]
        hopes += rounded.norms[:, :, None] * self._reach
        errors = self._scanned.errors(rounded)
        for request in zip(interests, maxima, hopes, errors, filters, strict=True):
            yield self._answer(*request, k)

    def _answer(
        self,
        interests: NDArray[np.float32],
        maxima: NDArray[np.float32],
        hopes: NDArray[np.float32],
        error: float,
        allowed: Filter | None,
        k: int,
    ) -> QueryHits:
        leading, bar = top_candidates(maxima, error, k)
        least = bar
        if allowed and bar > -np.inf:
            allowed.mask_scores(maxima, self.head)
            whole, (leading, bar) = bar, top_candidates(maxima, error, k)
            least = bar - _CAUTION * (whole - bar)
        which, probed = np.divmod(np.flatnonzero(hopes > least), hopes.shape[1])
        if bar == -np.inf or self._sizes.take(probed).sum() >= len(self._vectors):
            [line] = self.exact().iter_search(interests[None], k, [allowed])
            return line
        rows = self.head.take(leading)
        if len(probed):
            rows = np.concatenate([rows, self._probe(interests.take(which, axis=0), probed, bar)])
            rows = _once(rows)
            rows = allowed.filter_rows(rows) if allowed else rows
        return score(self._vectors, rows, interests)

    def _probe(
        self, interests: NDArray[np.float32], places: NDArray[np.int64], bar: float
    ) -> NDArray[np.int64]:
        """Rows whose product with interests[i] (P, D) passes the bar, in list places[i]."""
        lists: Any = self.faiss_index  # whose stub has another signature than its Python method
        _, _, rows = lists.range_search_preassigned(interests, bar, places[:, None], None)
        found: NDArray[np.int64] = rows
        return found

    def write(self, path: Path) -> None:
        faiss.write_index(self.faiss_index, str(path))


def _once(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each row once, in order: np.unique at half its cost."""
    rows.sort()
    first = np.empty(len(rows), dtype=bool)
    first[:1] = True
    np.not_equal(rows[1:], rows[:-1], out=first[1:])
    return rows[first]


def _members(lists: faiss.IndexIVF) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of all lists, one list after the other, and the size of each."""
    inverted = lists.invlists
    assert inverted is not None, "an index that was built or read has lists; this is a bug"
    sizes = np.array([inverted.list_size(place) for place in range(lists.nlist)])
    rows = [
        faiss.rev_swig_ptr(inverted.get_ids(place), int(size))
        for place, size in enumerate(sizes)
        if size
    ]
    return np.concatenate([np.empty(0, np.int64), *rows]), sizes


def _check(
    lists: faiss.IndexIVF,
    rows: Sequence[NDArray[np.int64]],
    means: NDArray[np.float32],
    vectors: NDArray[np.float32],
) -> None:
    """Raises ValueError unless the lists hold what these vectors make of their rows.

    rows, means: of each list. One list at a time, to bound the memory that it takes.
    """
    tolerance = _MEAN_TOLERANCE * max(float(vectors.max()), -float(vectors.min()))
    for place, listed in enumerate(rows):
        members = vectors[listed]
        if np.abs(_codes(lists, place, len(listed)) - _halves(members)).max(initial=0) > 1:
            raise ValueError("lists: not the vectors of their rows; build the index again")
        mean = members.sum(axis=0) / max(len(members), 1)
        if not np.abs(means[place] - mean).max() <= tolerance:
            raise ValueError("lists: a mean that is not of its members; build the index again")


def _codes(lists: faiss.IndexIVF, place: int, size: int) -> NDArray[np.int32]:
    """What a list holds of each member's vector (size, D): the bits of its halves."""
    inverted = lists.invlists
    assert inverted is not None, "an index that was built or read has lists; this is a bug"
    if not size:
        return np.empty((0, lists.d), np.int32)
    codes = faiss.rev_swig_ptr(inverted.get_codes(place), size * 2 * lists.d)
    return codes.view(np.uint16).reshape(size, lists.d).astype(np.int32)


def _halves(vectors: NDArray[np.float32]) -> NDArray[np.int32]:
    """The same of the vectors; of those that lie between two halves, faiss may take the other."""
    with np.errstate(over="ignore"):  # infinite then, as faiss has it
        return vectors.astype(np.float16).view(np.uint16).astype(np.int32)


def _others(rows: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Those of 1..total - 1 that are not among the rows."""
    if len(rows) and not 0 < rows.min() <= rows.max() < total:
        raise ValueError(f"lists: a row that is no item; the items are 1 to {total - 1:,}")
    times = np.bincount(rows, minlength=total)
    if times.max() > 1:
        raise ValueError("lists: a row that stands twice; each may once")
    return np.flatnonzero(times == 0)[1:]


def _deviations(
    squares: NDArray[np.float32], sizes: NDArray[np.int64], means: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(lists,): standard deviation of a component of the lists' members.

    squares: of the members' norms, list after list.
    """
    places = np.repeat(np.arange(len(sizes)), sizes)
    sums = np.bincount(places, squares, minlength=len(sizes))
    # E|x - m|^2 = E|x|^2 - |m|^2
    spread = sums / np.maximum(sizes, 1) - np.vecdot(means, means)
    deviations: NDArray[np.float32] = np.sqrt(np.maximum(spread, 0) / means.shape[1])
    return deviations.astype(np.float32)

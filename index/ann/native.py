"""The compiled part of the search: products of bytes, and the scan of lists (native.c).

It is optional. Where it was not built, as there was no C compiler, other kernels take its place.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from index.retrieval.filters import Filter

Isa = Literal["avx512-vnni", "avx-vnni", "avx2", "portable"]

MAX_QUERY_CODE = 63  # two products with a byte fit into 16 bits
_OFFSET = 128  # a stored byte is a code plus this
_STEP = 32  # components are multiplied at a time
MAX_DIM = 4096


@cache
def library() -> ctypes.CDLL | None:
    """None where it was not built."""
    found = find_spec("index.ann.native_code")
    if found is None or found.origin is None:
        return None
    loaded = ctypes.CDLL(found.origin)
    loaded.scan_lists.restype = ctypes.c_int64
    return loaded


def _built() -> ctypes.CDLL:
    loaded = library()
    assert loaded is not None, "the kernel is only chosen where it was built; this is a bug"
    return loaded


def is_supported(isa: Isa) -> bool:
    """Whether it was built, and this processor has the instructions."""
    loaded = library()
    return loaded is not None and bool(loaded.is_supported(isa.encode()))


def pointer(array: NDArray[Any] | None) -> ctypes.c_void_p:
    """Of a contiguous array, which must outlive the call; NULL for None."""
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def padded(codes: NDArray[Any]) -> NDArray[np.int8]:
    """Codes of queries (..., D), with zeros to a multiple of what is multiplied at a time."""
    dim = codes.shape[-1]
    result = np.zeros((*codes.shape[:-1], -(-dim // _STEP) * _STEP), np.int8)
    result[..., :dim] = codes
    return result


@dataclass(frozen=True)
class PackedBytes:
    """Vectors (M, D), each component a code plus 128."""

    isa: Isa
    vectors: NDArray[np.uint8]

    @classmethod
    def of(cls, isa: Isa, codes: NDArray[np.int8]) -> "PackedBytes":
        return cls(isa, codes.view(np.uint8) ^ np.uint8(_OFFSET))

    def __call__(self, queries: NDArray[Any]) -> NDArray[np.int32]:
        return self.maxima(queries, 1)

    def maxima(self, queries: NDArray[Any], count: int) -> NDArray[np.int32]:
        codes, (size, dim) = padded(queries), self.vectors.shape
        out = np.empty((len(codes) // count, size), np.int32)
        _built().multiply(
            self.isa.encode(),
            pointer(self.vectors),
            *(ctypes.c_int64(n) for n in (size, dim)),
            pointer(codes),
            *(ctypes.c_int64(n) for n in (codes.shape[1], len(out), count)),
            pointer(out),
        )
        return out


class Lists(ctypes.Structure):
    """Lists of bytes in memory, which must outlive it (`struct lists`)."""

    _fields_ = (
        ("codes", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("sizes", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("padded", ctypes.c_int64),
    )

    def __init__(
        self, codes: Sequence[int], rows: Sequence[int], sizes: NDArray[np.int64], dim: int
    ):
        """codes, rows: the address of each list's bytes (size, dim), and of its rows (size,)."""
        self._kept = [np.array(each, np.uint64) for each in (codes, rows, sizes)]
        width = -(-dim // _STEP) * _STEP
        super().__init__(*map(pointer, self._kept), len(sizes), dim, width)


class RowFilter(ctypes.Structure):
    """What a query allows (`struct filter`)."""

    _fields_ = (
        ("categories", ctypes.c_void_p),
        ("passes", ctypes.c_void_p),
        ("penalties", ctypes.c_void_p),
        ("excluded", ctypes.c_void_p),
        ("excluded_size", ctypes.c_int64),
    )

    def __init__(self, allowed: Filter | None) -> None:
        super().__init__()
        if not allowed:
            return
        excluded = np.sort(np.fromiter(allowed.excluded, np.int64, len(allowed.excluded)))
        categories = allowed.categories.codes
        self._kept = (allowed, categories, allowed.penalties, excluded)
        self.categories, self.passes = pointer(categories), pointer(allowed.passes)
        self.penalties = pointer(allowed.penalties)
        self.excluded, self.excluded_size = pointer(excluded), len(excluded)


def scan_lists(
    isa: Isa,
    lists: Lists,
    allowed: RowFilter,
    codes: NDArray[Any],
    bounds: NDArray[np.float32],
    order: NDArray[np.int64],
    items: int,
    caution: float,
    slack: int,
    best: NDArray[np.int32],
) -> NDArray[np.int64]:
    """Rows of the lists in this order, while their bounds exceed the k-th best product - caution.

    codes (K, D) of the interests; bounds (K, lists): assumed best product of a list with each.
    items: how many these lists have. slack: by so much less than the k-th best product an item's
    may be and still be found. best (k,): ascending, the best products so far; is changed.
    """
    queries, bounds = padded(codes), np.ascontiguousarray(bounds, np.float32)
    rows, products = np.empty(items, np.int64), np.empty(items, np.int32)
    found = _built().scan_lists(
        isa.encode(),
        ctypes.byref(lists),
        ctypes.byref(allowed),
        pointer(queries),
        ctypes.c_int64(len(queries)),
        pointer(bounds),
        pointer(order),
        ctypes.c_int64(len(order)),
        ctypes.c_float(caution),
        ctypes.c_int32(slack),
        pointer(best),
        ctypes.c_int64(len(best)),
        pointer(rows),
        pointer(products),
    )
    return rows[:found]

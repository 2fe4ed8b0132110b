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
    loaded.search.restype = loaded.search_all.restype = ctypes.c_int64
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
    # array.ctypes.data, without the object made for it
    return ctypes.c_void_p(None if array is None else array.__array_interface__["data"][0])


def _padded_dim(dim: int) -> int:
    return -(-dim // _STEP) * _STEP


def padded(codes: NDArray[Any]) -> NDArray[np.int8]:
    """Codes of queries (..., D), with zeros to a multiple of what is multiplied at a time."""
    dim = codes.shape[-1]
    result = np.zeros((*codes.shape[:-1], _padded_dim(dim)), np.int8)
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

    @classmethod
    def join(cls, blocks: Sequence[Any]) -> "PackedBytes":
        """One of several with the same instructions."""
        return cls(blocks[0].isa, np.concatenate([block.vectors for block in blocks]))

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


class Head(ctypes.Structure):
    """Items that are scanned for every request (`struct head`)."""

    _fields_ = (
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("norm", ctypes.c_double),
        ("error", ctypes.c_double),
    )

    def __init__(
        self,
        codes: NDArray[np.uint8],
        scales: NDArray[np.float32],
        rows: NDArray[np.int64],
        norm: float,
        error: float,
    ) -> None:
        """codes (size, D), each with a scale (size,) and a row (size,).

        norm, error: the largest of the vectors, and of their rounding errors (L2).
        """
        self._kept = (codes, scales, rows)
        arrays = pointer(codes), pointer(scales), pointer(rows)
        super().__init__(*arrays, len(rows), norm, error)


class Items(ctypes.Structure):
    """All items, of an exact search (`struct items`); the row of each is its position plus 1."""

    _fields_ = (
        ("vectors", ctypes.c_void_p),
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("padded", ctypes.c_int64),
        ("norm", ctypes.c_double),
        ("error", ctypes.c_double),
    )

    def __init__(
        self,
        vectors: NDArray[np.float32],
        codes: NDArray[np.uint8],
        scales: NDArray[np.float32],
        *numbers: float,
    ) -> None:
        """vectors, codes (size, D), each with a scale (size,); numbers: norm and error as of the
        head."""
        self._kept = (vectors, codes, scales)
        size, dim = vectors.shape
        arrays = pointer(vectors), pointer(codes), pointer(scales)
        super().__init__(*arrays, size, dim, _padded_dim(dim), *numbers)


class Lists(ctypes.Structure):
    """Lists of bytes in memory, which must outlive it (`struct lists`)."""

    _fields_ = (
        ("codes", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("sizes", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("padded", ctypes.c_int64),
        ("scale", ctypes.c_double),
        ("norm", ctypes.c_double),
        ("error", ctypes.c_double),
    )

    def __init__(
        self,
        codes: Sequence[int],
        rows: Sequence[int],
        sizes: NDArray[np.int64],
        dim: int,
        *numbers: float,
    ) -> None:
        """codes, rows: the address of each list's bytes (size, D), and of its rows (size,).

        numbers: a vector is its code times `scale`; norm and error as of the head.
        """
        self._kept = [np.array(each, np.uint64) for each in (codes, rows, sizes)]
        arrays = map(pointer, self._kept)
        super().__init__(*arrays, len(sizes), dim, _padded_dim(dim), *numbers)


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
        penalties = allowed.penalties
        self._kept = (allowed, categories, penalties, excluded)
        self.categories, self.passes = pointer(categories), pointer(allowed.passes)
        self.penalties = pointer(penalties)
        self.excluded, self.excluded_size = pointer(excluded), len(excluded)


class Request(ctypes.Structure):
    """What is searched (`struct request`)."""

    _fields_ = (
        ("interests", ctypes.c_void_p),
        ("bounds", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("k", ctypes.c_int64),
        ("caution", ctypes.c_double),
        ("unit", ctypes.c_float),
        ("norm", ctypes.c_double),
        ("error", ctypes.c_double),
    )

    def __init__(
        self,
        interests: NDArray[np.float32],
        k: int,
        bounds: NDArray[np.float32] | None = None,
        caution: float = 0,
    ) -> None:
        """interests (K, D); bounds (K, lists): assumed best score of a list for an interest."""
        self._kept = [None if a is None else np.ascontiguousarray(a) for a in (interests, bounds)]
        super().__init__(*map(pointer, self._kept), len(interests), k, caution)


def search(
    isa: Isa, request: Request, head: Head, lists: Lists, allowed: RowFilter, items: int
) -> NDArray[np.int64] | None:
    """Rows that may be among the k best, ascending, of the head and the lists worth a scan.

    items: in head and lists. None if the head has fewer than k items that are allowed.
    """
    rows, scores = np.empty(items, np.int64), np.empty(items, np.float32)
    structures = (ctypes.byref(each) for each in (request, head, lists, allowed))
    found = _built().search(isa.encode(), *structures, pointer(rows), pointer(scores))
    return None if found < 0 else rows[:found].copy()


def search_all(isa: Isa, request: Request, items: Items, allowed: RowFilter) -> NDArray[np.int64]:
    """Rows that may be among the k best allowed, ascending."""
    rows, scores = np.empty(items.size, np.int64), np.empty(items.size, np.float32)
    structures = (ctypes.byref(each) for each in (request, items, allowed))
    found = _built().search_all(isa.encode(), *structures, pointer(rows), pointer(scores))
    return rows[:found].copy()

"""Codes of the vectors in lists: a byte per component, or half precision in older releases.

Products of bytes take half the time, and half the memory. Their error is bounded, and what is found
is scored again exactly.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch as _torch  # noqa: F401  # isort: skip  (before faiss)
import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann.blocks import blocks

_MAX_CODE = 127
_OFFSET = 128  # faiss stores a code plus this, without a sign
_CACHED_ROWS = 1 << 12  # read once, and then several times from a cache
_MIN_LARGEST = np.float32(1e-30)  # in place of a largest component of 0
_FLOAT_ERROR = 1e-5  # of |interest| |vector|, as in index/ann/quantization.py


class ListQueries(NamedTuple):
    """codes (K, D) of the interests. radius: every product that exceeds a threshold exceeds it."""

    codes: NDArray[np.float32]
    radius: float


@dataclass(frozen=True)
class ByteCodec:
    """vector ~ code / scale. norm: the largest of the vectors."""

    scale: np.float32
    norm: float

    kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
    dtype = np.uint8
    tolerance = 0

    @classmethod
    def of(cls, largest: float, norm: float) -> "ByteCodec":
        """largest: component of the vectors, without its sign."""
        return cls(np.float32(_MAX_CODE) / max(np.float32(largest), _MIN_LARGEST), norm)

    def encode(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """What faiss is given for vectors (M, D)."""
        codes: NDArray[np.float32] = np.rint(vectors * self.scale)
        return codes

    def stored(self, vectors: NDArray[np.float32]) -> NDArray[np.int32]:
        """What faiss stores for vectors (M, D)."""
        return self.encode(vectors).astype(np.int32) + _OFFSET

    def vector_error(self, dim: int) -> float:
        """Of a vector of `dim` components, each of which is rounded by 1/2 at most: its L2 norm."""
        return 0.5 * math.sqrt(dim) / float(self.scale)

    def queries(self, interests: NDArray[np.float32], threshold: float) -> ListQueries:
        """For interests (K, D).

        |q.x - q'.x'| <= |q - q'| |x| + |q'| |x - x'|, with q', x' the decoded codes.
        """
        largest = max(float(interests.max()), -float(interests.min()), float(_MIN_LARGEST))
        scale, dim = _MAX_CODE / largest, interests.shape[1]
        codes = np.rint(interests * np.float32(scale))
        norm = float(np.vecdot(interests, interests).max()) ** 0.5
        error, vector_error = 0.5 * dim**0.5 / scale, self.vector_error(dim)
        bound = error * self.norm + (norm + error) * vector_error + _FLOAT_ERROR * norm * self.norm
        return ListQueries(codes, (threshold - bound) * scale * float(self.scale))


@dataclass(frozen=True)
class HalfCodec:
    """Vectors in half precision."""

    kind = faiss.ScalarQuantizer.QT_fp16
    dtype = np.uint16
    tolerance = 1  # faiss may round a number the other way

    def encode(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return vectors

    def stored(self, vectors: NDArray[np.float32]) -> NDArray[np.int32]:
        with np.errstate(over="ignore"):  # such numbers become infinite, in faiss too
            return vectors.astype(np.float16).view(np.uint16).astype(np.int32)

    def queries(self, interests: NDArray[np.float32], threshold: float) -> ListQueries:
        return ListQueries(interests, threshold)


ListCodec = ByteCodec | HalfCodec
CODECS = frozenset({ByteCodec.kind, HalfCodec.kind})


def codec_of(
    lists: faiss.IndexIVF, vectors: NDArray[np.float32], rows: NDArray[np.int64]
) -> ListCodec:
    """The codec of these lists, which hold those rows of the vectors."""
    assert isinstance(lists, faiss.IndexIVFScalarQuantizer), "the kind was checked; this is a bug"
    return HalfCodec() if lists.sq.qtype == HalfCodec.kind else byte_codec(vectors, rows)


def byte_codec(vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> ByteCodec:
    """The codec that suits those rows (M,) of the vectors."""
    is_member = np.zeros(len(vectors), dtype=bool)
    is_member[rows] = True
    largest = squared_norm = 0.0
    for block in blocks(len(vectors), _CACHED_ROWS):
        both = vectors[block]
        # Members are only picked out where a vector could raise one of the two.
        if _largest(both) > largest or np.vecdot(both, both).max() > squared_norm:
            members = both[is_member[block]]
            largest = max(largest, _largest(members))
            squared_norm = max(squared_norm, float(np.vecdot(members, members).max(initial=0)))
    return ByteCodec.of(largest, float(np.sqrt(np.float32(squared_norm))))


def _largest(vectors: NDArray[np.float32]) -> float:
    """Component, without its sign; 0 of no vectors."""
    return max(float(vectors.max(initial=0)), -float(vectors.min(initial=0)))


def fill_lists(
    codec: ListCodec,
    means: NDArray[np.float32],
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    list_ids: NDArray[np.int64],
) -> faiss.IndexIVFScalarQuantizer:
    """Lists with these means (lists, D); row rows[i] of the vectors is in list list_ids[i]."""
    dim = vectors.shape[1]
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(means)
    # No residuals: their products would need the product with the list's mean added.
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, dim, len(means), codec.kind, faiss.METRIC_INNER_PRODUCT, False
    )
    index.is_trained = True  # neither codec has anything to learn
    rows, list_ids = np.ascontiguousarray(rows), np.ascontiguousarray(list_ids)
    for block in blocks(len(rows)):
        codes: Any = np.ascontiguousarray(codec.encode(vectors.take(rows[block], axis=0)))
        given = codes, rows[block], list_ids[block]
        index.add_core(len(codes), *map(faiss.swig_ptr, given))
    return index

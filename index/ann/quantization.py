"""Vectors quantized to a byte per component, for fast products of many with a known error bound.

One integer product costs less than half of the float32 one. The error bound tells which of the best
approximate scores can truly be the best: a short list, which is scored again exactly.
"""

import platform
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

_MAX_CODE = 127
_MIN_SCALE = np.float32(1e-30)  # in place of a largest component of 0, to avoid division by zero
_VECTORS_PER_CHUNK = 1 << 16  # quantized at a time
_PRODUCTS_PER_BLOCK = 1 << 19  # 2 MiB, so that they are still cached when their maximum is taken
_FLOAT_ERROR = (
    1e-5  # of |interest| |vector|: more than float32 loses in a sum of some hundred terms
)

# int8; float32 where integer products are slow or wrong. Products of codes have the same type.
Codes = NDArray[Any]
Positions = slice | NDArray[np.int64]
_ALL = slice(None)


def _integer_products_are_exact() -> bool:
    """False on processors that saturate intermediate sums or have no fast kernel in torch."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    largest = torch.full((8, 64), _MAX_CODE, dtype=torch.int8)
    return bool((torch._int_mm(largest, largest.T) == 64 * _MAX_CODE**2).all())


_USE_INT8 = _integer_products_are_exact()


def _use_int8(dim: int) -> bool:
    return _USE_INT8 and dim > 1  # for one component torch leaves the products uninitialised


class QuantizedInterests(NamedTuple):
    """B requests of K interests: interest ~ code * the request's scale.

    codes (B * K, D); scales (B,), one for all K of a request, so that their products compare;
    norms (B, K) of the interests; errors (B,), the largest rounding error (L2) among the K.
    """

    codes: Codes
    scales: NDArray[np.float32]
    norms: NDArray[np.float32]
    errors: NDArray[np.float32]


def quantize_interests(interests: NDArray[np.float32]) -> QuantizedInterests:
    """interests (B, K, D), finite."""
    requests, _, dim = interests.shape
    norms = np.sqrt(np.vecdot(interests, interests))
    if not _use_int8(dim):
        ones = np.ones(requests, np.float32)
        return QuantizedInterests(interests.reshape(-1, dim), ones, norms, 0 * ones)
    largest = np.abs(interests).reshape(requests, -1).max(axis=1)
    scales = np.maximum(largest, _MIN_SCALE) / np.float32(_MAX_CODE)
    residuals = interests / scales[:, None, None]
    codes = np.rint(residuals)
    residuals -= codes
    errors = scales * np.sqrt(np.vecdot(residuals, residuals).max(axis=1))
    return QuantizedInterests(codes.reshape(-1, dim).astype(np.int8), scales, norms, errors)


class QuantizedMatrix:
    """M vectors, each with a scale of its own: vector ~ code * scale."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        """vectors (M, D), finite."""
        self._is_int8 = _use_int8(vectors.shape[1])
        self._codes: Codes = np.empty(vectors.shape, np.int8) if self._is_int8 else vectors
        self._scales = np.ones(len(vectors), np.float32)
        self._max_norm = self._max_error = 0.0
        for start in range(0, len(vectors), _VECTORS_PER_CHUNK):
            chunk = slice(start, start + _VECTORS_PER_CHUNK)
            self._max_norm = max(self._max_norm, _max_norm(vectors[chunk]))
            if self._is_int8:
                self._quantize(vectors, chunk)

    def _quantize(self, vectors: NDArray[np.float32], chunk: slice) -> None:
        largest = np.abs(vectors[chunk]).max(axis=1)
        scales = np.maximum(largest, _MIN_SCALE) / np.float32(_MAX_CODE)
        codes = np.rint(vectors[chunk] / scales[:, None])
        self._codes[chunk], self._scales[chunk] = codes, scales
        self._max_error = max(self._max_error, _max_norm(vectors[chunk] - codes * scales[:, None]))

    def __len__(self) -> int:
        return len(self._codes)

    def products(self, interests: QuantizedInterests, positions: Positions = _ALL) -> Codes:
        """(B, K, M): products of the codes; times scales(), inner products of the vectors."""
        # `take` is several times as fast as indexing with an array.
        codes = (
            self._codes[positions]
            if isinstance(positions, slice)
            else self._codes.take(positions, axis=0)
        )
        if self._is_int8:
            product: Codes = torch._int_mm(
                torch.from_numpy(interests.codes), torch.from_numpy(codes).T
            ).numpy()
        else:
            product = interests.codes @ codes.T
        return product.reshape(*interests.norms.shape, -1)

    def scales(
        self, interests: QuantizedInterests, positions: Positions = _ALL
    ) -> NDArray[np.float32]:
        """(B, M): the factors that turn products of codes into inner products."""
        scales: NDArray[np.float32] = interests.scales[:, None] * self._scales[positions]
        return scales

    def maxima(
        self, interests: QuantizedInterests, positions: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """(B, M): the approximate largest of the K inner products; of the positions, if given."""
        count = len(self) if positions is None else len(positions)
        maxima = np.empty((len(interests.scales), count), np.float32)
        block_size = _PRODUCTS_PER_BLOCK // len(interests.codes) + 1
        for start in range(0, count, block_size):
            block = slice(start, start + block_size)
            vectors = block if positions is None else positions[block]
            maxima[:, block] = self.products(interests, vectors).max(axis=1)
        maxima *= self.scales(interests, _ALL if positions is None else positions)
        return maxima

    def error_bounds(self, interests: QuantizedInterests) -> list[float]:
        """For each request, a bound on the error of its approximate inner products.

        |q.x - q'.x'| <= |q - q'| |x| + |q'| |x - x'|, with q', x' quantized.
        """
        errors, norms = interests.errors.tolist(), interests.norms.max(axis=1).tolist()
        return [
            error * self._max_norm
            + (norm + error) * self._max_error
            + _FLOAT_ERROR * norm * self._max_norm
            for error, norm in zip(errors, norms, strict=True)
        ]


def _max_norm(vectors: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.vecdot(vectors, vectors).max(initial=0)))

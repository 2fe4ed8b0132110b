"""Vectors quantized to a byte per component, for fast products of many with a known error bound.

One integer product costs less than half of the float32 one, with the kernel that fits the processor
(index/ann/kernels.py). The error bound tells which of the best approximate scores can truly be the
best: a short list, which is scored again exactly.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.ann.kernels import FLOAT32, MAX_CODE, Codes, Kernel, Native, Packed
from index.ann.native import PackedBytes

VECTORS_PER_BLOCK = 1 << 14  # multiplied at a time
_MIN_SCALE = np.float32(1e-30)  # in place of a largest component of 0, to avoid division by zero
_PRODUCTS_PER_CALL = 1 << 19  # 2 MiB, so that they are still cached when their maximum is taken
_FLOAT_ERROR = (
    1e-5  # of |interest| |vector|: more than float32 loses in a sum of some hundred terms
)

_ALL = slice(None)


class QuantizedInterests(NamedTuple):
    """B requests of K interests: interest ~ code * the request's scale.

    vectors, codes (B * K, D) float32; scales (B,), one for all K of a request, so that their
    products compare; norms (B, K) of the interests; errors (B,), the largest rounding error (L2)
    among the K.
    """

    vectors: NDArray[np.float32]
    codes: NDArray[np.float32]
    scales: NDArray[np.float32]
    norms: NDArray[np.float32]
    errors: NDArray[np.float32]


class QuantizedMatrix:
    """M vectors, each with a scale of its own: vector ~ code * scale."""

    def __init__(
        self,
        vectors: NDArray[np.float32],
        kernel: Kernel,
        block_size: int = VECTORS_PER_BLOCK,
    ) -> None:
        """vectors (M, D), finite; kept, and not changed meanwhile.

        kernel: float32 is used instead where it has no advantage.
        """
        usable = kernel.fits(vectors.shape[1]) and len(vectors) >= kernel.min_vectors
        self.kernel = kernel if usable else FLOAT32
        self._vectors = vectors
        self._scales = np.ones(len(vectors), np.float32)
        self._max_norm = self._max_error = 0.0
        self._block_size = max(1, block_size)
        self._blocks = [self._pack(block) for block in self._slices()]
        if isinstance(self.kernel, Native) and self._blocks:
            self._blocks, self._block_size = [PackedBytes.join(self._blocks)], len(vectors)

    def _slices(self) -> Iterator[slice]:
        for start in range(0, len(self), self._block_size):
            yield slice(start, min(start + self._block_size, len(self)))

    def _pack(self, block: slice) -> Packed:
        vectors = self._vectors[block]
        self._max_norm = max(self._max_norm, _max_norm(vectors))
        if not self.kernel.max_query_code:
            return self.kernel.pack(vectors)
        largest = np.maximum(vectors.max(axis=1), -vectors.min(axis=1))
        scales = np.maximum(largest, _MIN_SCALE) / np.float32(MAX_CODE)
        residuals = vectors / scales[:, None]
        codes = np.rint(residuals)
        residuals -= codes
        errors = scales * np.sqrt(np.vecdot(residuals, residuals))
        self._scales[block] = scales
        self._max_error = max(self._max_error, float(errors.max(initial=0)))
        return self.kernel.pack(codes.astype(np.int8))

    def __len__(self) -> int:
        return len(self._vectors)

    def packed_bytes(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """With a native kernel: bytes (M, D) and scales (M,) of the vectors; M at least 1."""
        [block] = self._blocks
        assert isinstance(block, PackedBytes), "another kernel packs in its own way; this is a bug"
        return block.vectors, self._scales

    def largest(self) -> tuple[float, float]:
        """The largest norm of a vector, and the largest rounding error (L2)."""
        return self._max_norm, self._max_error

    def quantize(self, interests: NDArray[np.float32]) -> QuantizedInterests:
        """interests (B, K, D), finite: as the kernel of this matrix multiplies them."""
        requests, _, dim = interests.shape
        norms = np.sqrt(np.vecdot(interests, interests))
        vectors = interests.reshape(-1, dim)
        if not self.kernel.max_query_code:
            ones = np.ones(requests, np.float32)
            return QuantizedInterests(vectors, vectors, ones, norms, 0 * ones)
        largest = np.abs(interests).reshape(requests, -1).max(axis=1)
        scales = np.maximum(largest, _MIN_SCALE) / np.float32(self.kernel.max_query_code)
        residuals = interests / scales[:, None, None]
        codes = np.rint(residuals)
        residuals -= codes
        errors = scales * np.sqrt(np.vecdot(residuals, residuals).max(axis=1))
        return QuantizedInterests(vectors, codes.reshape(-1, dim), scales, norms, errors)

    def products(self, interests: QuantizedInterests) -> Codes:
        """(B, K, M): products of the codes; see to_inner_products. There must be vectors."""
        products = [multiply(interests.codes) for multiply in self._blocks]
        joined = products[0] if len(products) == 1 else np.concatenate(products, axis=1)
        return joined.reshape(*interests.norms.shape, -1)

    def to_inner_products(
        self, products: Codes, interests: QuantizedInterests, positions: slice = _ALL
    ) -> NDArray[np.float32]:
        """Products (B, ..., M) of codes, times the scales of both. May be the argument itself.

        positions: of the M vectors.
        """
        if not self.kernel.max_query_code:
            return products
        scales = interests.scales.reshape(-1, *[1] * (products.ndim - 1))
        scaled: NDArray[np.float32] = products * (scales * self._scales[positions])
        return scaled

    def maxima(self, interests: QuantizedInterests) -> NDArray[np.float32]:
        """(B, M): the approximate largest of the K inner products."""
        requests, count = interests.norms.shape
        maxima = np.empty((requests, len(self)), np.float32)
        group_size = max(1, _PRODUCTS_PER_CALL // (count * self._block_size))
        groups = [slice(start, start + group_size) for start in range(0, requests, group_size)]
        for block, packed in zip(self._slices(), self._blocks, strict=True):
            for group in groups:
                codes = interests.codes[group.start * count : group.stop * count]
                maxima[group, block] = packed.maxima(codes, count)
        return self.to_inner_products(maxima, interests)

    def maxima_at(
        self, interests: QuantizedInterests, positions: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """(B, M'): the largest of the K inner products with the vectors at M' positions.

        In float32: packed codes cannot be picked out, and picking is what takes the time.
        """
        requests, count = interests.norms.shape
        maxima = np.empty((requests, len(positions)), np.float32)
        for start in range(0, len(positions), VECTORS_PER_BLOCK):
            block = slice(start, start + VECTORS_PER_BLOCK)
            # `take` is several times as fast as indexing with an array.
            products = interests.vectors @ self._vectors.take(positions[block], axis=0).T
            maxima[:, block] = products.reshape(requests, count, -1).max(axis=1)
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

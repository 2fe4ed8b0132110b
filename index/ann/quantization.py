"""Vectors rounded to a byte a component, for products of many at once whose error is known.

One integer product costs less than half of the float32 one, and the bound on its error tells which
of its best can truly be the best: a short list that is scored again exactly.
"""

import platform
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

_LEVELS = 127
_TINY = np.float32(1e-30)  # in place of a largest component of 0, which nothing can be divided by
_CHUNK = 1 << 16  # vectors rounded at a time
_CACHED = 1 << 19  # products at a time: 2 MiB, so that taking their maximum finds them in the cache
_FLOAT_ERROR = (
    1e-5  # of |interest| |vector|: more than float32 loses in a sum of some hundred terms
)

# int8, or float32 where integer products are of no use. So are the products of codes.
Codes = NDArray[Any]
Places = slice | NDArray[np.int64]
_ALL = slice(None)


def _integer_products_work() -> bool:
    """Not on every processor: some saturate on the way, and for some torch has no fast kernel."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    most = torch.full((8, 64), _LEVELS, dtype=torch.int8)
    return bool((torch._int_mm(most, most.T) == 64 * _LEVELS**2).all())


_BYTES = _integer_products_work()


def _bytes_for(dim: int) -> bool:
    return _BYTES and dim > 1  # of vectors of one component torch leaves the products unset


class RoundedInterests(NamedTuple):
    """B requests of K interests: interest = code * the request's step, nearly.

    codes (B * K, D); steps (B,), one for all K of a request, so that their products compare;
    norms (B, K) of the interests; errors (B,), the farthest that rounding moved one of the K.
    """

    codes: Codes
    steps: NDArray[np.float32]
    norms: NDArray[np.float32]
    errors: NDArray[np.float32]


def round_interests(interests: NDArray[np.float32]) -> RoundedInterests:
    """interests (B, K, D), finite."""
    requests, _, dim = interests.shape
    norms = np.sqrt(np.vecdot(interests, interests))
    if not _bytes_for(dim):
        ones = np.ones(requests, np.float32)
        return RoundedInterests(interests.reshape(-1, dim), ones, norms, 0 * ones)
    largest = np.abs(interests).reshape(requests, -1).max(axis=1)
    steps = np.maximum(largest, _TINY) / np.float32(_LEVELS)
    moved = interests / steps[:, None, None]
    rounded = np.rint(moved)
    moved -= rounded
    errors = steps * np.sqrt(np.vecdot(moved, moved).max(axis=1))
    return RoundedInterests(rounded.reshape(-1, dim).astype(np.int8), steps, norms, errors)


class RoundedMatrix:
    """M vectors, each with a step of its own: vector = code * step, nearly."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        """vectors (M, D), finite."""
        self._bytes = _bytes_for(vectors.shape[1])
        self._codes: Codes = np.empty(vectors.shape, np.int8) if self._bytes else vectors
        self._steps = np.ones(len(vectors), np.float32)
        self._norm = self._error = 0.0
        for first in range(0, len(vectors), _CHUNK):
            part = slice(first, first + _CHUNK)
            self._norm = max(self._norm, _longest(vectors[part]))
            if self._bytes:
                self._round(vectors, part)

    def _round(self, vectors: NDArray[np.float32], part: slice) -> None:
        largest = np.abs(vectors[part]).max(axis=1)
        steps = np.maximum(largest, _TINY) / np.float32(_LEVELS)
        rounded = np.rint(vectors[part] / steps[:, None])
        self._codes[part], self._steps[part] = rounded, steps
        self._error = max(self._error, _longest(vectors[part] - rounded * steps[:, None]))

    def __len__(self) -> int:
        return len(self._codes)

    def products(self, interests: RoundedInterests, part: Places = _ALL) -> Codes:
        """(B, K, M): interest . vector, but for their scale."""
        # Picked out by `take`, which is several times as fast as by brackets.
        codes = self._codes[part] if isinstance(part, slice) else self._codes.take(part, axis=0)
        if self._bytes:
            product: Codes = torch._int_mm(
                torch.from_numpy(interests.codes), torch.from_numpy(codes).T
            ).numpy()
        else:
            product = interests.codes @ codes.T
        return product.reshape(*interests.norms.shape, -1)

    def scale(self, interests: RoundedInterests, part: Places = _ALL) -> NDArray[np.float32]:
        """(B, M): what makes inner products of the products."""
        scale: NDArray[np.float32] = interests.steps[:, None] * self._steps[part]
        return scale

    def maxima(
        self, interests: RoundedInterests, places: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """(B, M): the largest of the K inner products, nearly; of the places alone, if given."""
        count = len(self) if places is None else len(places)
        best = np.empty((len(interests.steps), count), np.float32)
        block = _CACHED // len(interests.codes) + 1
        for first in range(0, count, block):
            part = slice(first, first + block)
            looked_at = part if places is None else places[part]
            best[:, part] = self.products(interests, looked_at).max(axis=1)
        best *= self.scale(interests, _ALL if places is None else places)
        return best

    def errors(self, interests: RoundedInterests) -> list[float]:
        """For each request: how far an inner product with its interests can be from the true one.

        |q.x - q'.x'| <= |q - q'| |x| + |q'| |x - x'|, for q', x' rounded.
        """
        moved, longest = interests.errors.tolist(), interests.norms.max(axis=1).tolist()
        return [
            m * self._norm + (q + m) * self._error + _FLOAT_ERROR * q * self._norm
            for m, q in zip(moved, longest, strict=True)
        ]


def _longest(vectors: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.vecdot(vectors, vectors).max(initial=0)))

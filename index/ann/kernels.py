"""Kernels: ways to multiply a block of vectors with few others. Which is fastest, the machine says.

Each is exact on codes: products of int8 kernels are whole numbers without any error. A kernel packs
the vectors of a block once, and multiplies them many times.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from index.ann import native
from index.ann.kernel_names import KernelName

MAX_CODE = 127
# int8 or float32: codes of vectors (M, D), codes of queries (Q, D), and their products (Q, M).
Codes = NDArray[Any]


class Packed(Protocol):
    """Packed vectors, to be multiplied with queries (Q, D)."""

    def __call__(self, queries: Codes) -> Codes:
        """The products (Q, M)."""
        ...

    def maxima(self, queries: Codes, count: int) -> Codes:
        """(Q / count, M): the largest product of each vector with `count` queries."""
        ...


@dataclass(frozen=True)
class Product:
    """By a function of the queries (Q, D) that returns the products (Q, M)."""

    multiply: Callable[[Codes], Codes]

    def __call__(self, queries: Codes) -> Codes:
        return self.multiply(queries)

    def maxima(self, queries: Codes, count: int) -> Codes:
        products = self.multiply(queries)
        maxima: Codes = products.reshape(-1, count, products.shape[1]).max(axis=1)
        return maxima


# FBGEMM on AVX2 adds two products of bytes in 16 bits: they fit if one of the bytes has 7 bits.
_FBGEMM_QUERY_CODE = 63
_EXACT_IN_FLOAT32 = 1 << 24  # up to here float32 holds every whole number


class Kernel(Protocol):
    """max_query_code: largest code of a query's component; 0 if floats are multiplied as they are.

    min_vectors: with fewer, a whole search takes no longer in float32: a call costs microseconds,
    and rounding leaves more candidates to score again.
    """

    name: KernelName
    max_query_code: int
    min_vectors: int

    def fits(self, dim: int) -> bool:
        """Whether products of vectors with `dim` components are exact."""
        ...

    def pack(self, codes: Codes) -> Packed:
        """These vectors (M, D), M at least 1, for products with queries.

        May keep the codes, which must not change. Raises RuntimeError or AttributeError where the
        operators or instructions are missing.
        """
        ...


class Float32:
    """Plain float32 products: on every processor, and what the others are compared with."""

    name: KernelName = "float32"
    max_query_code = 0
    min_vectors = 0

    def fits(self, dim: int) -> bool:
        return True

    def pack(self, codes: Codes) -> Packed:
        return Product(lambda queries: queries @ codes.T)


class Native:
    """Compiled for an instruction set, if there was a compiler (native.c); scans lists as well."""

    max_query_code = native.MAX_QUERY_CODE
    min_vectors = 0

    def __init__(self, isa: native.Isa) -> None:
        self.isa = isa
        # A checker does not know that each of these is a name.
        self.name: KernelName = f"native-{isa}"  # type: ignore[assignment]

    def fits(self, dim: int) -> bool:
        return dim <= native.MAX_DIM

    def pack(self, codes: Codes) -> Packed:
        if not native.is_supported(self.isa):
            raise RuntimeError(f"{self.name}: not built, or the processor lacks the instructions")
        return native.PackedBytes.of(self.isa, codes)


class Int8Vnni:
    """torch's integer product: fast with VNNI or AMX instructions, many times too slow without.

    Wrong on processors that saturate intermediate sums.
    """

    name: KernelName = "int8-vnni"
    max_query_code = MAX_CODE
    min_vectors = 0

    def fits(self, dim: int) -> bool:
        return dim > 1  # for one component torch leaves the products uninitialised

    def pack(self, codes: Codes) -> Packed:
        vectors = torch.from_numpy(codes).T
        return Product(
            lambda queries: torch._int_mm(
                torch.from_numpy(queries.astype(np.int8, copy=False)), vectors
            ).numpy()
        )


class Int8Fbgemm:
    """FBGEMM's product of 7-bit queries with packed bytes: fast with AVX2, and without VNNI.

    FBGEMM quantizes the queries of a call by their smallest and largest component. One more query,
    which has both -63 and 64, makes its scale 1 and its rounding exact; its products are dropped.
    """

    name: KernelName = "int8-fbgemm"
    max_query_code = _FBGEMM_QUERY_CODE
    min_vectors = 12288

    def fits(self, dim: int) -> bool:
        return 1 < dim <= _EXACT_IN_FLOAT32 // (MAX_CODE * (_FBGEMM_QUERY_CODE + 1))

    def pack(self, codes: Codes) -> Packed:
        weights = _quantized_tensor(torch.from_numpy(np.ascontiguousarray(codes)))
        packed = torch.ops.quantized.linear_prepack(weights, None)

        def multiply(queries: Codes) -> Codes:
            extended = np.zeros((len(queries) + 1, queries.shape[1]), np.float32)
            extended[:-1] = queries
            extended[-1, :2] = -_FBGEMM_QUERY_CODE, _FBGEMM_QUERY_CODE + 1
            product: Codes = torch.ops.quantized.linear_dynamic(
                torch.from_numpy(extended), packed, True
            ).numpy()
            return product[:-1]

        return Product(multiply)


def _quantized_tensor(codes: torch.Tensor) -> torch.Tensor:
    """The int8 tensor with the scale 1."""
    with warnings.catch_warnings():
        # The first call warns that a future torch drops such tensors. This kernel then is not
        # available, and another is chosen.
        warnings.simplefilter("ignore", UserWarning)
        tensor: torch.Tensor = torch._make_per_tensor_quantized_tensor(codes, 1.0, 0)
    return tensor


FLOAT32 = Float32()
# In the order in which they are preferred if about equally fast.
KERNELS: tuple[Kernel, ...] = (
    Native("avx512-vnni"),
    Native("avx-vnni"),
    Native("avx2"),
    Native("portable"),
    Int8Vnni(),
    Int8Fbgemm(),
    FLOAT32,
)

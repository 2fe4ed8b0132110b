"""Kernels: ways to multiply a block of vectors with few others. Which is fastest, the machine says.

Each is exact on codes: products of int8 kernels are whole numbers without any error. A kernel packs
the vectors of a block once, and multiplies them many times.
"""

import warnings
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

KernelName = Literal["int8-vnni", "int8-fbgemm", "float32"]

MAX_CODE = 127
# int8 or float32: codes of vectors (M, D), codes of queries (Q, D), and their products (Q, M).
Codes = NDArray[Any]
Multiply = Callable[[Codes], Codes]  # (Q, D) -> (Q, M)

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

    def pack(self, codes: Codes) -> Multiply:
        """A function that multiplies queries with these vectors (M, D), M at least 1.

        May keep the codes, which must not change. Raises RuntimeError or AttributeError where
        torch lacks the operators.
        """
        ...


class Float32:
    """Plain float32 products: on every processor, and what the others are compared with."""

    name: KernelName = "float32"
    max_query_code = 0
    min_vectors = 0

    def fits(self, dim: int) -> bool:
        return True

    def pack(self, codes: Codes) -> Multiply:
        return lambda queries: queries @ codes.T


class Int8Vnni:
    """torch's integer product: fast with VNNI or AMX instructions, many times too slow without.

    Wrong on processors that saturate intermediate sums.
    """

    name: KernelName = "int8-vnni"
    max_query_code = MAX_CODE
    min_vectors = 0

    def fits(self, dim: int) -> bool:
        return dim > 1  # for one component torch leaves the products uninitialised

    def pack(self, codes: Codes) -> Multiply:
        vectors = torch.from_numpy(codes).T
        return lambda queries: torch._int_mm(
            torch.from_numpy(queries.astype(np.int8, copy=False)), vectors
        ).numpy()


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

    def pack(self, codes: Codes) -> Multiply:
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

        return multiply


def _quantized_tensor(codes: torch.Tensor) -> torch.Tensor:
    """The int8 tensor with the scale 1."""
    with warnings.catch_warnings():
        # The first call warns that a future torch drops such tensors. This kernel then is not
        # available, and another is chosen.
        warnings.simplefilter("ignore", UserWarning)
        tensor: torch.Tensor = torch._make_per_tensor_quantized_tensor(codes, 1.0, 0)
    return tensor


FLOAT32 = Float32()
# In the order in which they are preferred if equally fast.
KERNELS: tuple[Kernel, ...] = (FLOAT32, Int8Vnni(), Int8Fbgemm())

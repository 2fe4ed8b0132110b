"""The kernel of this process: the fastest that is right on this processor, or the one named."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np

from index.ann.kernels import FLOAT32, KERNELS, MAX_CODE, Codes, Kernel, KernelName

AUTO = "auto"

# What is timed: the interests of a request, and vectors that do not fit into the innermost caches.
_QUERIES, _VECTORS, _DIM = 8, 16384, 64
_ROUNDS = 7
_HOPELESS = 3.0  # times the fastest: not timed any further
_ADVANTAGE = 0.95  # of float32's time: another kernel must take less, to be worth its rounding

# Kernels -> seconds of each for the same product.
Timing = Callable[[Sequence[Kernel]], Mapping[KernelName, float]]


def find_kernel(name: str = AUTO) -> Kernel:
    """The kernel of that name; for "auto", the fastest here, which is measured once per process.

    Raises ValueError for an unknown name, or a kernel that does not work on this processor.
    """
    if name == AUTO:
        return _fastest_kernel()
    by_name = {kernel.name: kernel for kernel in KERNELS}
    for known, kernel in by_name.items():
        if known == name:
            if not is_exact(kernel):
                raise ValueError(
                    f"kernel: {name} gives wrong products on this processor, or torch lacks it; "
                    f"choose {AUTO} or {FLOAT32.name}"
                )
            return kernel
    allowed = ", ".join((AUTO, *by_name))
    raise ValueError(f"kernel: {name!r} is unknown; choose one of {allowed}")


@cache
def _fastest_kernel() -> Kernel:
    return choose_kernel(KERNELS)


def choose_kernel(kernels: Sequence[Kernel], timing: Timing | None = None) -> Kernel:
    """The fastest kernel that is right; float32 unless another is faster.

    timing: measures the kernels; by default on this processor, in some 20 milliseconds.
    """
    candidates = [kernel for kernel in kernels if is_exact(kernel) and kernel.name != FLOAT32.name]
    seconds = (timing or measure_kernels)([FLOAT32, *candidates])
    limit = _ADVANTAGE * seconds[FLOAT32.name]
    faster = [kernel for kernel in candidates if seconds[kernel.name] < limit]
    return min(faster, key=lambda kernel: seconds[kernel.name], default=FLOAT32)


def is_exact(kernel: Kernel) -> bool:
    """Whether it is available, and its products are those of 64-bit integers.

    Tried with random and with the largest codes, and a number of queries and vectors that is not a
    multiple of anything.
    """
    random = np.random.default_rng(0)
    limit = kernel.max_query_code or MAX_CODE
    queries = random.integers(-limit, limit + 1, (11, _DIM))
    codes = random.integers(-MAX_CODE, MAX_CODE + 1, (101, _DIM))
    queries[:2], codes[:2] = [[limit], [-limit]], [[MAX_CODE], [-MAX_CODE]]
    try:
        products = kernel.pack(_stored(codes, kernel))(queries.astype(np.float32))
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return bool(np.array_equal(products, queries @ codes.T))


def measure_kernels(kernels: Sequence[Kernel]) -> dict[KernelName, float]:
    """Seconds that each takes for the same product: the shortest of several, in turns."""
    random = np.random.default_rng(0)
    codes = random.integers(-MAX_CODE, MAX_CODE + 1, (_VECTORS, _DIM))
    queries = random.integers(-1, 2, (_QUERIES, _DIM)).astype(np.float32)
    packed = {kernel.name: kernel.pack(_stored(codes, kernel)) for kernel in kernels}
    seconds = dict.fromkeys(packed, float("inf"))
    for _ in range(_ROUNDS):
        fastest = min(seconds.values())
        for name, multiply in packed.items():
            if fastest < float("inf") and seconds[name] > _HOPELESS * fastest:
                continue
            start = time.perf_counter()
            multiply(queries).max(axis=0)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def _stored(codes: Codes, kernel: Kernel) -> Codes:
    return codes.astype(np.int8 if kernel.max_query_code else np.float32)

"""The kernel of this process: the fastest that is right on this processor, or the one named."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from index.ann.kernel_names import KernelName
from index.ann.kernels import FLOAT32, KERNELS, MAX_CODE, Codes, Kernel, Native
from index.ann.one_thread import one_thread

AUTO = "auto"

# What is timed: the products of a block of vectors with the interests of a request.
_INTERESTS, _VECTORS, _DIM = 8, 1 << 14, 64
_ROUNDS = 5
_FEW = 1024  # vectors, with which a kernel without fast instructions is found out
_HOPELESS = 5.0  # times the fastest product of the few: not timed any further
# So much faster than float32 a kernel must be to be chosen, and than one that is preferred. Near a
# tie, processes would choose now one and now the other.
_ADVANTAGE = 0.9

# Kernels -> seconds of each for the same search.
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
                    f"kernel: {name} is not available: this processor lacks its instructions, it "
                    f"was not built, or torch lacks it; choose {AUTO} or {FLOAT32.name}"
                )
            return kernel
    allowed = ", ".join((AUTO, *by_name))
    raise ValueError(f"kernel: {name!r} is unknown; choose one of {allowed}")


@cache
def _fastest_kernel() -> Kernel:
    return choose_kernel(KERNELS)


def choose_kernel(kernels: Sequence[Kernel], timing: Timing | None = None) -> Kernel:
    """The fastest kernel that is right; float32 unless another is clearly faster.

    Of the native ones the first that works here. timing: measures the kernels; by default on this
    processor, in some milliseconds.
    """
    candidates: list[Kernel] = []
    for kernel in kernels:
        is_further = isinstance(kernel, Native) and any(isinstance(c, Native) for c in candidates)
        if kernel.name != FLOAT32.name and not is_further and is_exact(kernel):
            candidates.append(kernel)
    with one_thread():
        seconds = (timing or measure_kernels)([*candidates, FLOAT32])
    chosen: Kernel = FLOAT32
    for kernel in reversed(candidates):  # the preferred last
        limit = seconds[chosen.name]
        limit *= _ADVANTAGE if chosen is FLOAT32 else 1 / _ADVANTAGE
        if seconds[kernel.name] < min(limit, _ADVANTAGE * seconds[FLOAT32.name]):
            chosen = kernel
    return chosen


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
    """Seconds that each takes for the same products: the shortest of several, in turns.

    Of this process's time on a processor, all threads, which other load on the machine hardly
    changes. Infinite for those that are many times slower than the fastest.
    """
    random = np.random.default_rng(0)
    limit = min(kernel.max_query_code or MAX_CODE for kernel in kernels)
    codes = random.integers(-limit, limit + 1, (_VECTORS, _DIM), np.int8)
    queries = random.integers(-limit, limit + 1, (_INTERESTS, _DIM)).astype(np.float32)
    few = _shortest(kernels, codes[:_FEW], queries)
    hopeful = [k for k in kernels if few[k.name] <= _HOPELESS * min(few.values())]
    return dict.fromkeys(few, np.inf) | _shortest(hopeful, codes, queries)


def _shortest(
    kernels: Sequence[Kernel], codes: Codes, queries: NDArray[np.float32]
) -> dict[KernelName, float]:
    """Seconds for the largest product of each vector with the queries: the shortest of some."""
    seconds = dict.fromkeys((kernel.name for kernel in kernels), np.inf)
    packed = {kernel.name: kernel.pack(_stored(codes, kernel)) for kernel in kernels}
    for _ in range(_ROUNDS):
        for name, vectors in packed.items():
            start = time.process_time()
            vectors.maxima(queries, len(queries))
            seconds[name] = min(seconds[name], time.process_time() - start)
    return seconds


def _stored(codes: Codes, kernel: Kernel) -> Codes:
    return codes.astype(np.int8 if kernel.max_query_code else np.float32)

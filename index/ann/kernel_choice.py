"""The kernel of this process: the fastest that is right on this processor, or the one named."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from index.ann.kernels import FLOAT32, KERNELS, MAX_CODE, Codes, Kernel, KernelName
from index.ann.one_thread import one_thread
from index.ann.quantization import QuantizedMatrix
from index.ann.selection import score_rows, top_candidates

AUTO = "auto"

# What is timed: exact search for the interests of a request. As in a large catalogue, what a call
# costs besides its products matters little, and the vectors are in no cache: before each search, so
# many other bytes are read.
_INTERESTS, _K, _VECTORS, _DIM = 8, 50, 65536, 64
_CACHE_BYTES = 40 << 20
_ROUNDS = 4
_FEW = 4096  # vectors, with which a kernel without fast instructions is found out
_HOPELESS = 5.0  # times the first kernel's product of the few: not timed any further

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

    timing: measures the kernels; by default on this processor, in some 100 milliseconds.
    """
    candidates = [kernel for kernel in kernels if is_exact(kernel) and kernel.name != FLOAT32.name]
    with one_thread():
        seconds = (timing or measure_kernels)([FLOAT32, *candidates])
    faster = [kernel for kernel in candidates if seconds[kernel.name] < seconds[FLOAT32.name]]
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
    """Seconds that each takes for the same exact search: the shortest of several, in turns.

    Of this process's time on a processor, all threads, which other load on the machine hardly
    changes. Infinite for those that are many times slower than the first.
    """
    random = np.random.default_rng(0)
    vectors = random.random((_VECTORS, _DIM), np.float32) - np.float32(0.5)
    interests = random.random((1, _INTERESTS, _DIM), np.float32) - np.float32(0.5)
    codes = np.rint(MAX_CODE * vectors[:_FEW])
    queries = np.rint(interests[0])
    products = _shortest({k.name: partial(k.pack(_stored(codes, k)), queries) for k in kernels})
    limit = _HOPELESS * products[kernels[0].name]
    hopeful = {k.name: QuantizedMatrix(vectors, k) for k in kernels if products[k.name] <= limit}
    searched = _shortest(
        {name: partial(_search, matrix, vectors, interests) for name, matrix in hopeful.items()},
        _CACHE_BYTES,
    )
    return {name: searched.get(name, np.inf) for name in products}


def _shortest(
    calls: Mapping[KernelName, Callable[[], object]], other_bytes: int = 8
) -> dict[KernelName, float]:
    """Seconds of each call, before which other bytes are read: the shortest of some rounds."""
    seconds = dict.fromkeys(calls, np.inf)
    others = np.ones(other_bytes // 8)
    for _ in range(_ROUNDS):
        for name, call in calls.items():
            others.max()
            start = time.process_time()
            call()
            seconds[name] = min(seconds[name], time.process_time() - start)
    return seconds


def _search(
    matrix: QuantizedMatrix, vectors: NDArray[np.float32], interests: NDArray[np.float32]
) -> None:
    """What FlatIndex does for one request."""
    quantized = matrix.quantize(interests)
    [scores], [error] = matrix.maxima(quantized), matrix.error_bounds(quantized)
    score_rows(vectors, top_candidates(scores, error, _K)[0], interests[0])


def _stored(codes: Codes, kernel: Kernel) -> Codes:
    return codes.astype(np.int8 if kernel.max_query_code else np.float32)

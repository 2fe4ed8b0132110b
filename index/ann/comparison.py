"""Which of a release's two searches is faster here: its lists, or exact search.

An index is tuned where it is built. On another processor, with another kernel, exact search can be
the faster one, and it is never worse in recall.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from index.ann.ivf import IvfIndex
from index.retrieval.merge import merge
from index.retrieval.search import ItemIndex

_ROUNDS = 3
_REQUESTS = 16
_BUDGET_S = 0.5  # of the comparison; what was timed by then is compared
_EXACT_PREFERENCE = 1.05  # exact search is served if it takes at most this times the lists' time

Timer = Callable[[ItemIndex, NDArray[np.float32]], float]


@dataclass(frozen=True)
class Comparison:
    """Median microseconds of a request by the lists and by exact search, and the one to serve."""

    lists_us: float
    exact_us: float

    @property
    def served(self) -> Literal["flat", "ivf"]:
        return "flat" if self.exact_us <= _EXACT_PREFERENCE * self.lists_us else "ivf"


def compare_with_exact(
    lists: IvfIndex, interests: NDArray[np.float32], k: int, timer: Timer | None = None
) -> Comparison:
    """interests (Q, K, D) of at least one request, which is searched alone.

    timer: seconds of an index for one request (1, K, D); by default measured.
    """
    timer = timer or (lambda index, request: _time_request(index, request, k))
    requests = interests[:_REQUESTS, None]
    seconds = np.full((2, len(requests)), np.inf)
    end = time.perf_counter() + _BUDGET_S
    for _, (position, request) in product(range(_ROUNDS), enumerate(requests)):
        measured = [timer(lists, request), timer(lists.exact(), request)]
        seconds[:, position] = np.minimum(seconds[:, position], measured)
        if time.perf_counter() > end:
            break
    timed = seconds[:, np.isfinite(seconds[0])]
    lists_us, exact_us = (np.median(timed, axis=1) * 1e6).tolist()
    return Comparison(lists_us, exact_us)


def _time_request(index: ItemIndex, request: NDArray[np.float32], k: int) -> float:
    start = time.thread_time()
    merge(index.search(request, k))
    return time.thread_time() - start

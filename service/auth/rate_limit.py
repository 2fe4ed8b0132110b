"""How many requests one caller may send in a while."""

import math
import time

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from service.errors import RateLimitedError


class RateLimit:
    """Counted in this process alone, so each of several workers allows as many."""

    def __init__(self, rate: str) -> None:
        """rate: a number of requests and a time, such as 1000/second."""
        self._rate = parse(rate)
        # Not fixed windows: at the seam of two a caller would have twice the rate.
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def count(self, caller: str) -> None:
        """Raises RateLimitedError if the caller has sent all that it may for now."""
        if self._limiter.hit(self._rate, caller):
            return
        reset = self._limiter.get_window_stats(self._rate, caller).reset_time
        wait_s = max(1, math.ceil(reset - time.time()))
        raise RateLimitedError(
            f"rate: over {self._rate.amount} in {self._rate.get_expiry()} s, the most that one "
            f"caller is allowed; try again in {wait_s} s",
            wait_s,
        )

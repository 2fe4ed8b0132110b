"""Rate limit: how many requests one caller may send in a period."""

import math
import time

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from service.errors import RateLimitedError


class RateLimit:
    """Counted in this process only, so each of several workers allows that rate."""

    def __init__(self, rate: str) -> None:
        """rate: a number of requests per period, such as 1000/second."""
        self._rate = parse(rate)
        # Not fixed windows: across the boundary of two a caller would get twice the rate.
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def count(self, caller: str) -> None:
        """Raises RateLimitedError if the caller is over the rate."""
        if self._limiter.hit(self._rate, caller):
            return
        reset = self._limiter.get_window_stats(self._rate, caller).reset_time
        wait_s = max(1, math.ceil(reset - time.time()))
        raise RateLimitedError(
            f"rate: over {self._rate.amount} requests in {self._rate.get_expiry()} s, the limit "
            f"of each caller; try again in {wait_s} s",
            wait_s,
        )

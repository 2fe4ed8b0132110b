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

    def count(self, caller: str, more: int = 1, entries: int = 1) -> None:
        """Count further requests. Raises RateLimitedError if the caller is over the rate.

        entries: how many requests arrived at once, these included.
        """
        if more == 0 or self._limiter.hit(self._rate, caller, cost=more):
            return
        amount, period_s = self._rate.amount, self._rate.get_expiry()
        limit = f"over {amount} requests in {period_s} s, the limit of each caller"
        if entries > amount:
            raise RateLimitedError(
                f"rate: {entries} entries at once are {limit}; send at most {amount} at once",
                period_s,
            )
        reset = self._limiter.get_window_stats(self._rate, caller).reset_time
        wait_s = max(1, math.ceil(reset - time.time()))
        raise RateLimitedError(f"rate: {limit}; try again in {wait_s} s", wait_s)

"""A circuit breaker: after several failed calls in a row, calls are refused for a cooldown."""

import time
from collections.abc import Callable


class CircuitBreaker:
    """Closed until `threshold` calls in a row have failed; then open, except for trial calls.

    cooldown_s: seconds from a failure, or a trial, to the next trial. clock: monotonic seconds.
    """

    def __init__(
        self, threshold: int, cooldown_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._threshold = threshold
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._consecutive_failures = 0
        self._next_trial = 0.0

    @property
    def is_open(self) -> bool:
        return self._consecutive_failures >= self._threshold

    def admits(self) -> bool:
        """Whether to make the call. While open, an admitted caller has the trial and must make it.

        A trial whose result is never recorded delays the next trial by one cooldown.
        """
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._next_trial:
            return False
        self._next_trial = now + self._cooldown_s
        return True

    def record_success(self) -> None:
        self._consecutive_failures = 0

    def record_failure(self) -> None:
        self._consecutive_failures += 1
        self._next_trial = self._clock() + self._cooldown_s

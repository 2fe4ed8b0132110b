"""A circuit breaker: what keeps failing is left alone for a while, then tried once."""

import time
from collections.abc import Callable


class Breaker:
    """Closed until `failures` calls in a row have failed; then open, but for a trial now and then.

    pause_s: seconds from a failure, or a trial, to the next trial. clock: monotonic seconds.
    """

    def __init__(
        self, failures: int, pause_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._failures = failures
        self._pause_s = pause_s
        self._clock = clock
        self._in_a_row = 0
        self._next_trial = 0.0

    @property
    def open(self) -> bool:
        return self._in_a_row >= self._failures

    def admits(self) -> bool:
        """Whether to make the call. While open, who is admitted has the trial and must make it."""
        if not self.open:
            return True
        now = self._clock()
        if now < self._next_trial:
            return False
        # A trial that is never reported only delays the next by one pause.
        self._next_trial = now + self._pause_s
        return True

    def succeeded(self) -> None:
        self._in_a_row = 0

    def failed(self) -> None:
        self._in_a_row += 1
        self._next_trial = self._clock() + self._pause_s

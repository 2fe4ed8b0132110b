"""How long a query will wait in the queue, estimated from the batches before it."""

_MAX_GROWTH = 2  # of the interval: a longer one is a pause of the process, not a batch's work


class WaitEstimate:
    """A moving average of the seconds from one batch to the next, or until no request waits.

    interval_s: the average, which includes all that is done between two batches. It is of batches
    and not of queries: under overload most of the time goes to rejections, however few queries a
    batch has. One pause of the process changes it little, and every batch corrects it.
    """

    def __init__(self, max_batch_size: int) -> None:
        self.interval_s = 0.0
        self._max_batch_size = max_batch_size
        self._began: float | None = None

    def wait_s(self, depth: int, running: bool) -> float:
        """Seconds that a query waits behind `depth` others, and behind a batch if one is running.

        0 for an idle engine, so that some query is admitted whatever the interval was.
        """
        return (depth / self._max_batch_size + running) * self.interval_s

    def batch_began(self, now: float) -> None:
        self._update(now)
        self._began = now

    def became_idle(self, now: float) -> None:
        self._update(now)
        self._began = None

    def _update(self, now: float) -> None:
        if self._began is None:
            return
        interval_s = now - self._began
        if self.interval_s:
            interval_s = (self.interval_s + min(interval_s, _MAX_GROWTH * self.interval_s)) / 2
        self.interval_s = interval_s

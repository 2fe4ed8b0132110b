"""Counters and histograms for every request: what is noted is added up when it is read.

The client library takes a lock, twice for a histogram, at each of ten metrics of a request: a fifth
of all that HTTP costs. These are for one thread, the event loop's, and so need none.
"""

from collections.abc import Iterable

import numpy as np
from prometheus_client import Counter, Histogram
from prometheus_client.samples import Sample

_MAX_PENDING = 4096  # observations, where nobody reads them


class BufferedCounter(Counter):
    """A counter that is raised by one thread."""

    def _metric_init(self) -> None:
        self._pending = 0.0
        super()._metric_init()

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        self._pending += amount

    def flush(self) -> None:
        amount, self._pending = self._pending, 0.0
        super().inc(amount)

    def _child_samples(self) -> Iterable[Sample]:
        self.flush()
        return super()._child_samples()


class BufferedHistogram(Histogram):
    """A histogram that one thread observes for."""

    def _metric_init(self) -> None:
        self._pending: list[float] = []
        super()._metric_init()

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        self._pending.append(amount)
        if len(self._pending) >= _MAX_PENDING:
            self.flush()

    def flush(self) -> None:
        amounts, self._pending = self._pending, []
        if not amounts:
            return
        # The bucket of the smallest bound that is not below the amount.
        buckets = np.searchsorted(self._upper_bounds, amounts)
        for bucket, count in enumerate(np.bincount(buckets).tolist()):
            if count:
                self._buckets[bucket].inc(count)
        self._sum.inc(float(np.sum(amounts)))

    def _child_samples(self) -> Iterable[Sample]:
        self.flush()
        return super()._child_samples()


def flush(metric: BufferedCounter | BufferedHistogram) -> None:
    """Of a metric with labels: all its children."""
    children = metric._metrics.values() if metric._labelnames else (metric,)
    for child in [*children]:
        child.flush()

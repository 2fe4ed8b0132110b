"""Metrics of the canary, beside those of its quality."""

from collections.abc import Sequence
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

from service.telemetry.metrics import Metrics

Variant = Literal["current", "canary"]

_RATIOS = tuple(tenth / 10 for tenth in range(11))
_DIFFERENCES = (-1.0, -0.5, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.5, 1.0)


class CanaryMetrics:
    """Counted only while a canary runs."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.responses = self._counter(
            "re4_variant_responses",
            "Recommendations while a canary runs, by variant and source.",
            ["variant", "source"],
        )
        self.share = self._gauge(
            "re4_canary_share", "Share of the users whom the canary answers; 0 without one."
        )
        self.failing = self._gauge(
            "re4_canary_failing",
            "1 if the canary cannot be loaded, so that the live release answers everyone.",
        )
        self.aborted = self._gauge(
            "re4_canary_aborted", "1 if the canary was aborted and its file is still there."
        )
        self.aborts = self._counter(
            "re4_canary_aborts", "Canaries aborted as their hit rate was lower."
        )
        self._create_shadow_metrics()

    def _create_shadow_metrics(self) -> None:
        self.shadow_comparisons = self._counter(
            "re4_shadow_comparisons",
            "Answers that a canary in shadow mode was to be compared with, by outcome.",
            ["outcome"],
        )
        self.shadow_overlap = self._metrics.create(
            Histogram,
            "re4_shadow_overlap_ratio",
            "Share of an answer's items that are in the shadow's answer too.",
            buckets=_RATIOS,
        )
        self.shadow_score_difference = self._metrics.create(
            Histogram,
            "re4_shadow_score_difference_ratio",
            "Mean score of the shadow's items less that of the answer's, as a share of the latter.",
            buckets=_DIFFERENCES,
        )

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return self._metrics.create(Counter, name, text, labels)

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return self._metrics.create(Gauge, name, text, labels, multiprocess_mode="livemax")

"""Metrics of the canary and of the variants. No label holds a user id or an item id."""

from typing import Literal

from prometheus_client import Counter, Gauge

from service.telemetry.metrics import Metrics

Variant = Literal["current", "canary"]


class CanaryMetrics:
    """Counted only while a canary runs."""

    def __init__(self, metrics: Metrics) -> None:
        registry = metrics.registry
        self.responses = Counter(
            "re4_variant_responses",
            "Recommendations while a canary runs, by variant and source.",
            ["variant", "source"],
            registry=registry,
        )
        self.share = Gauge(
            "re4_canary_share",
            "Share of the users whom the canary answers; 0 without one.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.failing = Gauge(
            "re4_canary_failing",
            "1 if the canary cannot be loaded, so that the live release answers everyone.",
            registry=registry,
            multiprocess_mode="livemax",
        )

"""Metrics of the canary and of the variants. No label holds a user id or an item id."""

from collections.abc import Sequence
from typing import Literal

from prometheus_client import Counter, Gauge

from service.telemetry.metrics import Metrics

Variant = Literal["current", "canary"]


class CanaryMetrics:
    """Counted only while a canary runs."""

    def __init__(self, metrics: Metrics) -> None:
        self._registry = metrics.registry
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
        self.users = self._gauge(
            "re4_canary_users", "Users observed while a canary runs, by variant.", ["variant"]
        )
        self.hit_rate = self._gauge(
            "re4_canary_hit_rate",
            "Share of the users with an event on an answered item, by variant, and by the interest "
            "that found it.",
            ["variant", "interest"],
        )
        self.items = self._gauge(
            "re4_canary_items", "Different items in the answers, by variant.", ["variant"]
        )
        self.difference = self._gauge(
            "re4_canary_difference",
            "Hit rate of the canary less that of the live release, with its bounds.",
            ["bound"],
        )

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry, multiprocess_mode="livemax")

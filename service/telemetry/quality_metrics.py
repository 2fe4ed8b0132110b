"""Metrics of live quality. No label holds a user id or an item id."""

import math
from collections.abc import Mapping, Sequence

from prometheus_client import Gauge

from service.telemetry.metrics import Metrics


class GaugeTable:
    """A gauge with labels, all of whose values are set together."""

    def __init__(self, metrics: Metrics, name: str, text: str, labels: Sequence[str]) -> None:
        self._gauge = metrics.create(Gauge, name, text, labels, multiprocess_mode="livemax")
        self._can_remove = not metrics.are_shared
        self._shown: set[tuple[str, ...]] = set()

    def show(self, values: Mapping[tuple[str, ...], float]) -> None:
        """These values, by their labels, and no others."""
        for labels in self._shown - values.keys():
            if self._can_remove:
                self._gauge.remove(*labels)
            else:  # the files that workers share keep a label for ever
                self._gauge.labels(*labels).set(math.nan)
        for labels, value in values.items():
            self._gauge.labels(*labels).set(value)
        self._shown = set(values)


class QualityMetrics:
    """Of the live release at all times, and of both variants while a canary runs.

    The rates are absent until users were observed.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.live_users = self._gauge(
            "re4_live_users", "Users who were observed with the live release."
        )
        self.live_items = self._gauge(
            "re4_live_items", "Different items in the live release's answers to observed users."
        )
        self.live_hit_rate = self._table(
            "re4_live_hit_rate",
            "Share of these users with an event on an answered item, with its bounds, by the "
            "interest that found the item.",
            "interest",
            "bound",
        )
        self._create_canary_metrics()

    def _create_canary_metrics(self) -> None:
        self.users = self._table(
            "re4_canary_users", "Users observed while a canary runs, by variant.", "variant"
        )
        self.items = self._table(
            "re4_canary_items", "Different items in the answers, by variant.", "variant"
        )
        self.hit_rate = self._table(
            "re4_canary_hit_rate",
            "Share of the users with an event on an answered item, by variant, and by the interest "
            "that found it, with its bounds.",
            "variant",
            "interest",
            "bound",
        )
        self.difference = self._table(
            "re4_canary_difference",
            "Hit rate of the canary less that of the live release, with its bounds.",
            "bound",
        )

    def _gauge(self, name: str, text: str) -> Gauge:
        return self._metrics.create(Gauge, name, text, multiprocess_mode="livemax")

    def _table(self, name: str, text: str, *labels: str) -> GaugeTable:
        return GaugeTable(self._metrics, name, text, labels)

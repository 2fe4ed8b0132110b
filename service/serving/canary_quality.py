"""The live quality of a canary beside that of the live release, and the end of a worse one."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from service.serving.canary import CanaryLoader
from service.serving.hit_rates import BOUNDS, VariantQuality, proportion_of, quality_of
from service.serving.live_quality import POLL_INTERVAL_S
from service.serving.proportions import Interval, difference
from service.settings import Settings
from service.store.live_quality import CANARY_DAYS, VARIANTS, LiveQuality, VariantCounts
from service.store.polling import poll_forever
from service.telemetry.canary_metrics import Variant
from service.telemetry.quality_metrics import QualityMetrics

Verdict = Literal["undecided", "better", "worse"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QualityReport:
    """difference: of the hit rates, canary - current, valid however often it is looked at."""

    variants: Mapping[Variant, VariantQuality]
    difference: Interval
    verdict: Verdict


def report_on(
    counts: Mapping[Variant, VariantCounts], alpha: float, min_users: int
) -> QualityReport:
    """The quality of both variants, and whether the canary is better or worse beyond doubt."""
    total = {name: proportion_of(counts[name]) for name in VARIANTS}
    between = difference(total["canary"], total["current"], alpha)
    verdict: Verdict = "undecided"
    if min(proportion.users for proportion in total.values()) >= min_users:
        verdict = "worse" if between.high < 0 else "better" if between.low > 0 else "undecided"
    variants = {name: quality_of(counts[name]) for name in VARIANTS}
    return QualityReport(variants, between, verdict)


class CanaryQuality:
    """Compares the variants while a canary runs, and aborts it if it is worse beyond doubt.

    All workers and replicas read the same counts, and each comes to the same verdict; the first to
    say so logs and counts it, and the others follow.
    """

    def __init__(
        self,
        store: LiveQuality,
        canary: CanaryLoader,
        metrics: QualityMetrics,
        settings: Settings,
    ) -> None:
        self._store = store
        self._canary = canary
        self._metrics = metrics
        self._alpha = settings.canary_alpha
        self._min_users = settings.canary_min_users
        self._aborts = settings.canary_on_worse == "abort"

    async def report(self) -> QualityReport | None:
        """The quality so far; None without a canary. Raises HistoryUnavailableError."""
        run = self._canary.run
        if run is None:
            return None
        return report_on(await self._store.read(run, CANARY_DAYS), self._alpha, self._min_users)

    async def watch(self) -> None:
        """Check the quality now and then, for ever."""
        await poll_forever(self.check, POLL_INTERVAL_S)

    async def check(self) -> None:
        """Show the quality in the metrics; end a canary that is worse, or was aborted elsewhere.

        Raises HistoryUnavailableError.
        """
        run = self._canary.run
        if run is None:
            self._hide()
        if run is None or self._canary.aborted:
            return
        if await self._store.is_aborted(run):
            self._canary.abort(run)
            return
        report = report_on(await self._store.read(run, CANARY_DAYS), self._alpha, self._min_users)
        self._show(report)
        if report.verdict == "worse" and self._aborts:
            if await self._store.abort(run):
                self._canary.metrics.aborts.inc()
                between = report.difference
                fields = {"low": between.low, "difference": between.estimate, "high": between.high}
                log.error("canary aborted: its hit rate is lower", extra=fields)
            self._canary.abort(run)

    def _show(self, report: QualityReport) -> None:
        metrics, qualities = self._metrics, report.variants.items()
        metrics.users.show({(variant,): quality.users for variant, quality in qualities})
        metrics.items.show({(variant,): quality.items for variant, quality in qualities})
        metrics.hit_rate.show(
            {
                (variant, *labels): rate
                for variant, quality in qualities
                for labels, rate in quality.samples()
            }
        )
        metrics.difference.show({(bound,): getattr(report.difference, bound) for bound in BOUNDS})

    def _hide(self) -> None:
        """The figures of a canary that has ended are nobody's."""
        metrics = self._metrics
        for table in (metrics.users, metrics.items, metrics.hit_rate, metrics.difference):
            table.show({})

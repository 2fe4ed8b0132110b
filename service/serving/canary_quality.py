"""The live quality of a canary beside that of the live release, and the end of a worse one."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from service.errors import HistoryUnavailableError
from service.serving.canary import CanaryLoader
from service.serving.proportions import Interval, Proportion, difference, wilson
from service.settings import Settings
from service.store.events import Event
from service.store.live_quality import POPULAR, VARIANTS, LiveQuality, VariantCounts
from service.telemetry.canary_metrics import Variant

Verdict = Literal["undecided", "better", "worse"]

_POLL_INTERVAL_S = 5.0
_ALL = "all"  # in place of an interest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VariantQuality:
    """hit_rate: share of the users with a hit. by_interest: with a hit that this interest found."""

    users: int
    hit_rate: Interval
    by_interest: Mapping[str, Interval]
    answers: int
    items: int


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
    total = {
        name: Proportion(counts[name].users, sum(counts[name].hits.values())) for name in VARIANTS
    }
    between = difference(total["canary"], total["current"], alpha)
    verdict: Verdict = "undecided"
    if min(proportion.users for proportion in total.values()) >= min_users:
        verdict = "worse" if between.high < 0 else "better" if between.low > 0 else "undecided"
    variants = {
        name: VariantQuality(
            total[name].users,
            wilson(total[name]),
            {
                interest: wilson(Proportion(counts[name].users, hits))
                for interest, hits in sorted(counts[name].hits.items())
            },
            counts[name].answers,
            counts[name].items,
        )
        for name in VARIANTS
    }
    return QualityReport(variants, between, verdict)


class CanaryQuality:
    """Counts answers and hits while a canary runs, and aborts it if it is worse beyond doubt.

    All workers and replicas count in the same Redis, and each comes to the same verdict; the first
    to say so logs and counts it, and the others follow.
    """

    def __init__(self, store: LiveQuality, canary: CanaryLoader, settings: Settings) -> None:
        self._store = store
        self._canary = canary
        self._alpha = settings.canary_alpha
        self._min_users = settings.canary_min_users
        self._aborts = settings.canary_on_worse == "abort"

    def record_answer(
        self, user_id: str | None, variant: Variant, items: Iterable[Mapping[str, Any]]
    ) -> None:
        """Note what a user was shown. items: those of the answer."""
        run = self._canary.run
        if run is None or user_id is None:
            return
        interests = {item["item_id"]: _name_of(item["interest"]) for item in items}
        self._store.record_answer(run, user_id, variant, interests)

    def record_events(self, events: Sequence[Event]) -> None:
        """Note which of the users had a hit."""
        if (run := self._canary.run) is not None:
            self._store.record_events(run, events)

    async def forget(self, user_id: str) -> None:
        """Delete what is stored of the user. Raises HistoryUnavailableError."""
        await self._store.forget(user_id)

    async def report(self) -> QualityReport | None:
        """The quality so far; None without a canary. Raises HistoryUnavailableError."""
        run = self._canary.run
        if run is None:
            return None
        return report_on(await self._store.read(run), self._alpha, self._min_users)

    async def watch(self) -> None:
        """Check the quality now and then, for ever."""
        while True:
            with suppress(HistoryUnavailableError):  # recorded by ResilientRedis
                await self.check()
            await asyncio.sleep(_POLL_INTERVAL_S)

    async def check(self) -> None:
        """Show the quality in the metrics; end a canary that is worse, or was aborted elsewhere.

        Raises HistoryUnavailableError.
        """
        run = self._canary.run
        if run is None or self._canary.aborted:
            return
        if await self._store.is_aborted(run):
            self._canary.abort(run)
            return
        report = await self.report()
        if report is None:
            return
        self._show(report)
        if report.verdict == "worse" and self._aborts:
            if await self._store.abort(run):
                self._canary.metrics.aborts.inc()
                between = report.difference
                fields = {"low": between.low, "difference": between.estimate, "high": between.high}
                log.error("canary aborted: its hit rate is lower", extra=fields)
            self._canary.abort(run)

    def _show(self, report: QualityReport) -> None:
        metrics = self._canary.metrics
        for variant, quality in report.variants.items():
            metrics.users.labels(variant).set(quality.users)
            metrics.items.labels(variant).set(quality.items)
            for interest, interval in {_ALL: quality.hit_rate, **quality.by_interest}.items():
                metrics.hit_rate.labels(variant, interest).set(interval.estimate)
        for bound in ("low", "estimate", "high"):
            metrics.difference.labels(bound).set(getattr(report.difference, bound))


def _name_of(interest: int | None) -> str:
    return POPULAR if interest is None else str(interest)

"""The hit rate of the live release, at all times; and what is noted for it, and for a canary's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.serving.canary import CanaryLoader, is_in_share
from service.serving.hit_rates import VariantQuality, quality_of
from service.serving.release_loader import ReleaseLoader
from service.settings import Settings
from service.store.events import Event
from service.store.live_quality import CANARY_DAYS, POPULAR, LiveQuality, Shown
from service.store.polling import poll_forever
from service.telemetry.canary_metrics import Variant
from service.telemetry.quality_metrics import QualityMetrics

POLL_INTERVAL_S = 5.0
_SAMPLE = "quality"  # in place of a release: which users are observed depends on none


@dataclass(frozen=True)
class LiveReport:
    """release: the live one's id."""

    release: str
    quality: VariantQuality


class QualityObserver:
    """Counts answers and hits: of the live release for a sample of users, and of a canary's run.

    All workers and replicas count in the same Redis.
    """

    def __init__(
        self,
        store: LiveQuality,
        live: ReleaseLoader,
        canary: CanaryLoader,
        metrics: QualityMetrics,
        settings: Settings,
    ) -> None:
        self._store = store
        self._live = live
        self._canary = canary
        self._metrics = metrics
        self._rate = settings.quality_sample_rate
        self._days = settings.quality_days

    def record_answer(
        self, user_id: str | None, release: str, variant: Variant | None, answer: Mapping[str, Any]
    ) -> None:
        """Note what a user was shown. release: who answered; variant: None without a canary."""
        if user_id is None:
            return
        runs = dict(self._runs(user_id, release, variant))
        if runs:
            items = {item["item_id"]: _name_of(item["interest"]) for item in answer["items"]}
            shown = Shown(user_id, answer["impression_id"], variant or "current", items, runs)
            self._store.record_answer(shown)

    def record_events(self, events: Sequence[Event]) -> None:
        """Note which of the users had a hit."""
        compares = self._canary.run is not None
        observed = [each for each in events if compares or self._is_sampled(each.user_id)]
        if observed:
            self._store.record_events(observed)

    async def forget(self, user_id: str) -> None:
        """Delete what is stored of the user. Raises HistoryUnavailableError."""
        await self._store.forget(user_id)

    async def report(self) -> LiveReport | None:
        """The quality so far; None without a release, and if no user is observed.

        Raises HistoryUnavailableError.
        """
        live = self._live.release
        if live is None or not self._rate:
            return None
        counts = await self._store.read(_run_of(live.id), self._days)
        return LiveReport(live.id, quality_of(counts["current"]))

    async def watch(self) -> None:
        """Show the quality in the metrics, for ever."""
        await poll_forever(self.check, POLL_INTERVAL_S)

    async def check(self) -> None:
        """Show the quality in the metrics. Raises HistoryUnavailableError."""
        if (report := await self.report()) is not None:
            self._metrics.live_users.set(report.quality.users)
            self._metrics.live_items.set(report.quality.items)
            self._metrics.live_hit_rate.show(dict(report.quality.samples()))

    def _runs(
        self, user_id: str, release: str, variant: Variant | None
    ) -> Iterator[tuple[str, float]]:
        """Name, and days until the user is observed again, of each run that the answer is of."""
        if variant != "canary" and self._is_sampled(user_id):
            yield _run_of(release), self._days
        if variant is not None and (run := self._canary.run) is not None:
            yield run, CANARY_DAYS

    def _is_sampled(self, user_id: str) -> bool:
        return is_in_share(user_id, _SAMPLE, self._rate)


def _run_of(release: str) -> str:
    """The run of a live release."""
    return f"live:{release}"


def _name_of(interest: int | None) -> str:
    return POPULAR if interest is None else str(interest)

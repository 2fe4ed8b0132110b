"""Shadow mode: the canary is asked what a user was just answered, and only the metrics see it."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from index.retrieval.query import Query
from service.errors import EXPECTED_ERRORS
from service.http.recommendations import recommendations
from service.serving.batching import Engine
from service.serving.canary import CanaryLoader

_MAX_COMPARISONS = 4  # at a time; more are skipped

log = logging.getLogger(__name__)

_Items = Sequence[Mapping[str, Any]]


class Shadow:
    """Comparisons of answers, each after its answer was sent, and only while no request waits."""

    def __init__(self, engine: Engine, canary: CanaryLoader) -> None:
        self._engine = engine
        self._canary = canary
        self._tasks: set[asyncio.Task[None]] = set()

    def compare(self, user_id: str | None, query: Query, shown: _Items) -> None:
        """Have the canary asked, if it runs as a shadow and the user is of its share.

        shown: the items of the answer.
        """
        loaded = self._canary.loaded
        if loaded is None or not loaded.settings.shadow or not loaded.has(user_id):
            return
        if len(self._tasks) >= _MAX_COMPARISONS:
            self._count("skipped")
            return
        task = asyncio.create_task(self._compare(query, shown))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _compare(self, query: Query, shown: _Items) -> None:
        if self._engine.depth:
            self._count("skipped")
            return
        try:
            result = await self._engine.answer(query, lambda: False, variants=("canary",))
        except Exception as error:
            if not isinstance(error, EXPECTED_ERRORS):
                log.exception("shadow failed")
            self._count("failed")
            return
        if result.variant == "canary":  # else it has ended since
            self._observe(shown, recommendations(result, explain=False, degraded=False)["items"])
            self._count("compared")

    def _observe(self, shown: _Items, others: _Items) -> None:
        metrics = self._canary.metrics
        ids, other_ids = ({item["item_id"] for item in items} for items in (shown, others))
        if longest := max(len(ids), len(other_ids)):
            metrics.shadow_overlap.observe(len(ids & other_ids) / longest)
        if (score := _mean_score(shown)) and others:
            difference = (_mean_score(others) - score) / abs(score)
            metrics.shadow_score_difference.observe(difference)

    def _count(self, outcome: str) -> None:
        self._canary.metrics.shadow_comparisons.labels(outcome).inc()


def _mean_score(items: _Items) -> float:
    return sum(item["score"] for item in items) / len(items) if items else 0.0

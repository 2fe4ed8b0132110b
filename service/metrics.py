"""What Prometheus is told: one process, one registry. No label holds an id of a user or item."""

from collections.abc import Callable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

Stage = Literal["history", "queue", "encode", "search", "merge", "total"]
Refusal = Literal["queue_full", "deadline", "client_gone", "not_ready"]

_SECONDS = (
    *(0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005),
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Every instrument of the process; labelled ones are looked up once, not for each request."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._requests()
        self._answers()
        self._history()
        self._release()

    def _requests(self) -> None:
        self.requests = Counter(
            "re4_requests",
            "Answers by route and status.",
            ["route", "status"],
            registry=self.registry,
        )
        stages = Histogram(
            "re4_stage_seconds",
            "Time of each stage: history and total of a request; queue, encode, search and merge "
            "of a batch.",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.history_s = stages.labels("history")
        self.queue_s = stages.labels("queue")
        self.encode_s = stages.labels("encode")
        self.search_s = stages.labels("search")
        self.merge_s = stages.labels("merge")
        self.total_s = stages.labels("total")
        self.batch_size = Histogram(
            "re4_batch_requests", "Requests in a batch.", buckets=_BATCHES, registry=self.registry
        )
        refused = Counter(
            "re4_refused", "Requests refused or dropped.", ["reason"], registry=self.registry
        )
        self.refused = {
            reason: refused.labels(reason)
            for reason in ("queue_full", "deadline", "client_gone", "not_ready")
        }
        self._queue_depth = Gauge(
            "re4_queue_requests", "Requests waiting for the engine.", registry=self.registry
        )

    def _answers(self) -> None:
        answers = Counter(
            "re4_answers", "Recommendations by source.", ["source"], registry=self.registry
        )
        self.answers = {source: answers.labels(source) for source in ("interests", "popular")}
        self.degraded = Counter(
            "re4_degraded", "Recommendations without a wanted history.", registry=self.registry
        )
        self.unknown_items = Counter(
            "re4_unknown_items",
            "Items of histories that the release does not know.",
            registry=self.registry,
        )
        self.events = Counter("re4_events", "Events accepted.", registry=self.registry)

    def _history(self) -> None:
        self.history_failures = Counter(
            "re4_history_failures",
            "Failed calls of Redis, by operation and error.",
            ["operation", "error"],
            registry=self.registry,
        )
        self.history_up = Gauge(
            "re4_history_up", "1 if the last call of Redis succeeded.", registry=self.registry
        )

    def _release(self) -> None:
        self.release = Gauge(
            "re4_release_info", "1 for the release in use.", ["release"], registry=self.registry
        )
        self.release_loaded = Gauge(
            "re4_release_loaded_timestamp_seconds",
            "When the release in use was loaded.",
            registry=self.registry,
        )
        reloads = Counter(
            "re4_reloads", "Attempts to load a release.", ["outcome"], registry=self.registry
        )
        self.reloads = {outcome: reloads.labels(outcome) for outcome in ("loaded", "failed")}
        self.reload_failing = Gauge(
            "re4_reload_failing",
            "1 if what `current` names could not be loaded.",
            registry=self.registry,
        )

    def watch_queue(self, depth: Callable[[], int]) -> None:
        self._queue_depth.set_function(depth)

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return generate_latest(self.registry)

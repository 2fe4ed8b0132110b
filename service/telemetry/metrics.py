"""What Prometheus is told. No label holds an id of a user or item.

A process alone keeps its numbers in memory. Several workers keep them in files of the folder that
PROMETHEUS_MULTIPROC_DIR names, from which each tells the sum of all, dead ones included; what holds
for a moment alone, such as the depth of a queue, only of those that live.
"""

from collections.abc import Callable
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector

Refusal = Literal["shed", "queue_full", "wait", "deadline", "client_gone", "not_ready"]

_SECONDS = (
    *(0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005),
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
)
_SHARES = tuple(tenth / 10 for tenth in range(11))
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Every instrument of the process; labelled ones are looked up once, not for each request."""

    def __init__(self, shared: bool = False) -> None:
        """shared: other workers tell these numbers too."""
        self.are_shared = shared
        self.registry = self._told = CollectorRegistry()
        self._watched: list[tuple[Gauge, Callable[[], float]]] = []
        if shared:
            self._told = CollectorRegistry()
            MultiProcessCollector(self._told)  # type: ignore[no-untyped-call]
        else:
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
        self.refused = {reason: refused.labels(reason) for reason in get_args(Refusal)}
        self.queue_depth = Gauge(
            "re4_queue_requests",
            "Requests waiting for the engine.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.queue_age = Gauge(
            "re4_queue_age_seconds",
            "How long the first of the waiting requests has waited.",
            registry=self.registry,
            multiprocess_mode="livemax",
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
        self.unknown_share = Histogram(
            "re4_unknown_share",
            "Share of a history, one that is not empty, that the release does not know.",
            buckets=_SHARES,
            registry=self.registry,
        )
        self.top_interest_share = Histogram(
            "re4_winning_interest_share",
            "Share of an answer's items of the interest that found most, where there are several.",
            buckets=_SHARES,
            registry=self.registry,
        )
        self.union_share = Histogram(
            "re4_interest_union_share",
            "Distinct items among the k best of each of K interests, over K * k; 1 / K is collapse."
            " Of the requests that union-share draws.",
            buckets=_SHARES,
            registry=self.registry,
        )
        self.events = Counter("re4_events", "Events accepted.", registry=self.registry)
        self.new_items = Gauge(
            "re4_new_items",
            "Items unknown to the release that are offered beside it.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.new_candidates = Counter(
            "re4_new_candidates",
            "Candidates that the release does not know.",
            registry=self.registry,
        )

    def _history(self) -> None:
        self.history_failures = Counter(
            "re4_history_failures",
            "Failed calls of Redis, by operation and error.",
            ["operation", "error"],
            registry=self.registry,
        )
        self.history_up = Gauge(
            "re4_history_up",
            "1 if the last call of Redis succeeded.",
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self.breaker_open = Gauge(
            "re4_history_breaker_open",
            "1 while Redis is left alone.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.withdrawn = Gauge(
            "re4_withdrawn_items",
            "Items that are withdrawn from all answers.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        histories = Counter(
            "re4_histories",
            "Histories that were answered for, by where they came from.",
            ["source"],
            registry=self.registry,
        )
        self.histories = {
            source: histories.labels(source) for source in ("posted", "stored", "both", "none")
        }

    def _release(self) -> None:
        self.release = Gauge(
            "re4_release_info",
            "1 for the release in use.",
            ["release"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.release_created = Gauge(
            "re4_release_created_timestamp_seconds",
            "When the release in use was made.",
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self.release_loaded = Gauge(
            "re4_release_loaded_timestamp_seconds",
            "When the release in use was loaded.",
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        reloads = Counter(
            "re4_reloads", "Attempts to load a release.", ["outcome"], registry=self.registry
        )
        self.reloads = {outcome: reloads.labels(outcome) for outcome in ("loaded", "failed")}
        self.reload_failing = Gauge(
            "re4_reload_failing",
            "1 if what `current` names could not be loaded.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.reload_failures = Counter(
            "re4_reload_failures",
            "Releases that could not be loaded, by what was wrong with them.",
            ["stage"],
            registry=self.registry,
        )

    def watch(self, gauge: Gauge, value: Callable[[], float]) -> None:
        """Have the gauge show the value whenever somebody looks."""
        self._watched.append((gauge, value))

    def poll(self) -> None:
        """Note the watched values, of which no other process can ask."""
        for gauge, value in self._watched:
            gauge.set(value())

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        self.poll()
        return generate_latest(self._told)

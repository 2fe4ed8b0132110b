"""Prometheus metrics. No label holds a user id or an item id.

A single process keeps its metrics in memory. Several workers keep them in files of the folder that
PROMETHEUS_MULTIPROC_DIR names, and each worker exposes the sums over all workers, ended ones
included. Gauges, such as the queue depth, cover the running workers only.
"""

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector

from service.telemetry.buffered import BufferedCounter, BufferedHistogram, flush
from service.telemetry.output import dropped_lines
from service.telemetry.processes import ServiceProcesses

RejectionReason = Literal["shed", "queue_full", "wait", "deadline", "client_gone", "not_ready"]
TaskName = Literal["engine", "releases", "withdrawals", "new items", "metrics", "redis", "workers"]

_SECONDS = (
    *(0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005),
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
)
_RATIOS = tuple(tenth / 10 for tenth in range(11))
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# How a gauge is combined over the running workers.
_Combination = Literal["livesum", "livemax", "livemin"]


class Metrics:
    """All metrics of the process. Labelled children are created once, not for each request."""

    def __init__(self, shared: bool = False) -> None:
        """shared: other workers expose the metrics of this one too."""
        self.are_shared = shared
        self.registry = self._exposed_registry = CollectorRegistry()
        self._gauge_callbacks: list[tuple[Gauge, Callable[[], float]]] = []
        self._buffered: list[BufferedCounter | BufferedHistogram] = []
        self._counter_callbacks: list[tuple[Counter, Callable[[], float], list[float]]] = []
        if shared:
            self._exposed_registry = CollectorRegistry()
            MultiProcessCollector(self._exposed_registry)  # type: ignore[no-untyped-call]
            self._exposed_registry.register(ServiceProcesses())
        else:
            ProcessCollector(registry=self.registry)
            GCCollector(registry=self.registry)
        self._create_request_metrics()
        self._create_latency_metrics()
        self._create_response_metrics()
        self._create_interest_metrics()
        self._create_cold_start_metrics()
        self._create_store_metrics()
        self._create_release_metrics()
        self._create_reload_metrics()
        self._create_process_metrics()
        if shared:
            self._create_gc_metrics()

    def _create_request_metrics(self) -> None:
        self.requests = self._request_counter(
            "re4_requests", "Requests answered, by route and status.", ["route", "status"]
        )
        self._requests: dict[tuple[str, int], Counter] = {}  # looked up once, not for each request
        rejected = self._request_counter(
            "re4_rejected_requests", "Requests rejected or dropped, by reason.", ["reason"]
        )
        self.rejected_requests = {
            reason: rejected.labels(reason) for reason in get_args(RejectionReason)
        }
        self.queue_depth = self._gauge(
            "re4_queue_requests", "Requests waiting for the engine.", "livesum"
        )
        self.queue_age = self._gauge(
            "re4_queue_age_seconds", "Waiting time of the oldest request in the queue.", "livemax"
        )

    def _create_latency_metrics(self) -> None:
        request = self._histogram(
            "re4_request_seconds",
            "Latency of one request: reading the history, and in total.",
            _SECONDS,
            ["stage"],
        )
        self.history_s = request.labels("history")
        self.total_s = request.labels("total")
        batch = self._histogram(
            "re4_batch_stage_seconds",
            "Latency of one batch: waiting in the queue, encoding, search and merge.",
            _SECONDS,
            ["stage"],
        )
        self.queue_s = batch.labels("queue")
        self.encode_s = batch.labels("encode")
        self.search_s = batch.labels("search")
        self.merge_s = batch.labels("merge")
        self.batch_size = self._histogram(
            "re4_batch_requests", "Requests in one batch.", _BATCH_SIZES
        )

    def _create_response_metrics(self) -> None:
        responses = self._request_counter(
            "re4_responses", "Recommendations, by source.", ["source"]
        )
        self.responses = {source: responses.labels(source) for source in ("interests", "popular")}
        self.degraded_responses = self._counter(
            "re4_degraded_responses",
            "Recommendations made without the stored history, which could not be read.",
        )
        history_sources = self._request_counter(
            "re4_history_sources", "Histories used for recommendations, by source.", ["source"]
        )
        self.history_sources = {
            source: history_sources.labels(source)
            for source in ("posted", "stored", "both", "none")
        }
        self.history_oov_items = self._request_counter(
            "re4_history_oov_items", "Items of histories that the release does not know."
        )
        self.history_oov_ratio = self._histogram(
            "re4_history_oov_ratio",
            "Share of a history's items that the release does not know; empty histories excluded.",
            _RATIOS,
        )

    def _create_interest_metrics(self) -> None:
        self.top_interest_share = self._histogram(
            "re4_top_interest_share",
            "Share of a response's items that come from its most frequent interest; only for "
            "encoders with several interests.",
            _RATIOS,
        )
        self.interest_overlap_ratio = self._histogram(
            "re4_interest_overlap_ratio",
            "Distinct items in the top k of each of K interests, divided by K * k; 1 / K means "
            "that all interests find the same items. Measured on a sample of the requests.",
            _RATIOS,
        )

    def _create_cold_start_metrics(self) -> None:
        self.cold_start_items = self._gauge(
            "re4_cold_start_items",
            "Items recommended in addition to those of the release.",
            "livemax",
        )
        self.cold_start_candidates = self._counter(
            "re4_cold_start_candidates", "Candidates that the release does not know."
        )

    def _create_store_metrics(self) -> None:
        self.events = self._counter("re4_events", "Events accepted.")
        self.late_events = self._counter(
            "re4_late_events", "Events accepted too late for the history: only logged."
        )
        self.redis_failures = self._counter(
            "re4_redis_failures",
            "Failed Redis calls, by operation and error.",
            ["operation", "error"],
        )
        self.redis_up = self._gauge(
            "re4_redis_up", "1 if the last Redis call succeeded.", "livemin"
        )
        self.redis_circuit_open = self._gauge(
            "re4_redis_circuit_open",
            "1 while the circuit breaker is open and Redis is not called.",
            "livemax",
        )
        self.redis_evicts = self._gauge(
            "re4_redis_evicts", "1 if Redis drops keys when it is full.", "livemax"
        )
        self.withdrawn_items = self._gauge(
            "re4_withdrawn_items", "Items withdrawn from all responses.", "livemax"
        )
        self.withdrawn_vanished = self._counter(
            "re4_withdrawn_vanished", "Times that withdrawn items were missing in Redis."
        )
        self.announced_items = self._gauge(
            "re4_announced_items", "Announced items outside the release.", "livemax"
        )

    def _create_release_metrics(self) -> None:
        self.release = self._gauge(
            "re4_release_info", "1 for the release in use.", "livemax", ["release"]
        )
        self.kernel = self._gauge(
            "re4_kernel_info", "1 for the kernel of the item search in use.", "livemax", ["kernel"]
        )
        self.engine_circuit_open = self._gauge(
            "re4_engine_circuit_open", "1 while the engine fails and is not asked.", "livemax"
        )
        self.exact_scans = self._counter(
            "re4_exact_scans", "Requests that the lists could not answer, so that all was scanned."
        )
        self.release_created = self._gauge(
            "re4_release_created_timestamp_seconds",
            "When the release in use was created.",
            "livemin",
        )
        self.release_loaded = self._gauge(
            "re4_release_loaded_timestamp_seconds", "When the release in use was loaded.", "livemin"
        )

    def _create_reload_metrics(self) -> None:
        reloads = self._counter("re4_reloads", "Attempts to load a release.", ["outcome"])
        self.reloads = {outcome: reloads.labels(outcome) for outcome in ("loaded", "failed")}
        self.reload_failing = self._gauge(
            "re4_reload_failing",
            "1 if the release that `current` names cannot be loaded.",
            "livemax",
        )
        self.reload_failures = self._counter(
            "re4_reload_failures", "Failed loads of a release, by failing stage.", ["stage"]
        )

    def _create_process_metrics(self) -> None:
        failures = self._counter(
            "re4_background_task_failures",
            "Unexpected errors of what runs in the background, all of which goes on after them.",
            ["task"],
        )
        self.dropped_log_lines = self._counter(
            "re4_dropped_log_lines", "Log lines dropped, as nothing read them fast enough."
        )
        self.add_counter_callback(self.dropped_log_lines, dropped_lines)
        self.task_failures = {task: failures.labels(task) for task in get_args(TaskName)}

    def _create_gc_metrics(self) -> None:
        """Those of GCCollector, whose values only the process itself can read."""
        for name, text in (
            ("collected", "Objects collected during gc."),
            ("uncollectable", "Uncollectable objects found during GC."),
            ("collections", "Number of times this generation was collected."),
        ):
            metric = "python_gc_" + (name if name == "collections" else f"objects_{name}")
            counter = self._counter(metric, text, ["generation"])
            for generation in range(len(gc.get_stats())):
                total = partial(_gc_total, generation, name)
                child = counter.labels(str(generation))
                child.inc(total())
                self.add_counter_callback(child, total)

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _request_counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """One that the event loop raises, for every request."""
        counter = BufferedCounter(name, text, labels, registry=self.registry)
        self._buffered.append(counter)
        return counter

    def _gauge(
        self, name: str, text: str, combination: _Combination, labels: Sequence[str] = ()
    ) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry, multiprocess_mode=combination)

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        histogram = BufferedHistogram(name, text, labels, buckets=buckets, registry=self.registry)
        self._buffered.append(histogram)
        return histogram

    def add_gauge_callback(self, gauge: Gauge, value: Callable[[], float]) -> None:
        """Set the gauge to value() at each `poll`."""
        self._gauge_callbacks.append((gauge, value))

    def add_counter_callback(self, counter: Counter, total: Callable[[], float]) -> None:
        """Raise the counter by what total() has grown since, at each `poll`."""
        self._counter_callbacks.append((counter, total, [total()]))

    def count_request(self, route: str, status: int) -> None:
        counter = self._requests.get((route, status))
        if counter is None:
            counter = self._requests[route, status] = self.requests.labels(route, status)
        counter.inc()

    def poll(self) -> None:
        """Call the callbacks, and add up. Other workers can read only what was set."""
        for counter, total, last in self._counter_callbacks:
            now = total()
            counter.inc(now - last[0])
            last[0] = now
        for gauge, value in self._gauge_callbacks:
            gauge.set(value())
        for buffered in self._buffered:
            flush(buffered)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        self.poll()
        return generate_latest(self._exposed_registry)


def _gc_total(generation: int, name: str) -> float:
    return float(gc.get_stats()[generation][name])

"""Prometheus metrics. No label holds a user id or an item id."""

import gc
from functools import partial
from typing import Literal, get_args

from prometheus_client import Counter

from index.ann.exact_scans import exact_scans
from service.telemetry.metric_group import Exposition, MetricGroup
from service.telemetry.output import dropped_lines

RejectionReason = Literal["shed", "queue_full", "wait", "deadline", "client_gone", "not_ready"]
TaskName = Literal["engine", "releases", "withdrawals", "new items", "metrics", "redis", "workers"]

_SECONDS = (
    *(0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005),
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
)
_RATIOS = tuple(tenth / 10 for tenth in range(11))
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ProcessMetrics(MetricGroup):
    """What is counted for the whole process, whoever was served."""

    def __init__(self, exposition: Exposition) -> None:
        super().__init__(exposition)
        dropped = self._counter(
            "re4_dropped_log_lines", "Log lines dropped, as nothing read them fast enough."
        )
        self.add_counter_callback(dropped, dropped_lines)
        scans = self._counter(
            "re4_exact_scans", "Requests that the lists could not answer, so that all was scanned."
        )
        self.add_counter_callback(scans, exact_scans)
        if self.are_shared:
            self._create_gc_metrics()

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


class RequestCounts(MetricGroup):
    """All that is counted of a request whose tenant is not known, as one that is not HTTP."""

    def __init__(self, exposition: Exposition, tenant: str | None = None) -> None:
        super().__init__(exposition, tenant)
        self.requests = self._request_counter(
            "re4_requests", "Requests answered, by route and status.", ["route", "status"]
        )
        self._requests: dict[tuple[str, int], Counter] = {}  # looked up once, not for each request

    def count_request(self, route: str, status: int) -> None:
        counter = self._requests.get((route, status))
        if counter is None:
            counter = self._requests[route, status] = self.requests.labels(route, status)
        counter.inc()


class Metrics(RequestCounts):
    """All metrics of the service. Labelled children are created once, not for each request."""

    def __init__(self, exposition: Exposition | None = None, tenant: str | None = None) -> None:
        """tenant: one of several, of a process whose ProcessMetrics are there already."""
        super().__init__(exposition or Exposition(), tenant)
        if tenant is None:
            ProcessMetrics(self._exposition)
        self._create_engine_metrics()
        self._create_latency_metrics()
        self._create_response_metrics()
        self._create_interest_metrics()
        self._create_cold_start_metrics()
        self._create_store_metrics()
        self._create_release_metrics()
        self._create_reload_metrics()
        self._create_task_metrics()

    def _create_engine_metrics(self) -> None:
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
        self.changed_items = self._gauge(
            "re4_changed_items",
            "Items of which title, categories or attributes were changed through the API.",
            "livemax",
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

    def _create_task_metrics(self) -> None:
        failures = self._counter(
            "re4_background_task_failures",
            "Unexpected errors of what runs in the background, all of which goes on after them.",
            ["task"],
        )
        self.task_failures = {task: failures.labels(task) for task in get_args(TaskName)}


def _gc_total(generation: int, name: str) -> float:
    return float(gc.get_stats()[generation][name])

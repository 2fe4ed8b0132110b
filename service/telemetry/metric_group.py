"""Metrics that are created, read and exposed together: those of the process, or of one tenant.

A single process keeps its metrics in memory. Several workers keep them in files of the folder that
PROMETHEUS_MULTIPROC_DIR names, and each worker exposes the sums over all workers, ended ones
included. Gauges, such as the queue depth, cover the running workers only.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector

from service.telemetry.buffered import BufferedCounter, BufferedHistogram, flush
from service.telemetry.processes import ServiceProcesses

TENANT = "tenant"  # the label of all metrics of a process that serves several

# How a gauge is combined over the running workers.
Combination = Literal["livesum", "livemax", "livemin"]

M = TypeVar("M", bound=MetricWrapperBase)


class Exposition:
    """The families of this process's metrics, each created once and shared by the tenants."""

    def __init__(self, shared: bool = False) -> None:
        """shared: other workers expose the metrics of this one too."""
        self.are_shared = shared
        self.registry = self.exposed = CollectorRegistry()
        self.groups: list[MetricGroup] = []
        self._families: dict[str, MetricWrapperBase] = {}
        if shared:
            self.exposed = CollectorRegistry()
            MultiProcessCollector(self.exposed)  # type: ignore[no-untyped-call]
            self.exposed.register(ServiceProcesses())
        else:
            ProcessCollector(registry=self.registry)
            GCCollector(registry=self.registry)

    def family(
        self, kind: type[M], name: str, text: str, labels: Sequence[str], **options: Any
    ) -> M:
        """The one of that name; its first user creates it."""
        if name not in self._families:
            self._families[name] = kind(name, text, labels, registry=self.registry, **options)
        return cast(M, self._families[name])


class TenantFamily:
    """One tenant's part of a family with further labels, used as the whole is by a single one."""

    def __init__(self, family: MetricWrapperBase, tenant: str) -> None:
        self._family = family
        self._tenant = tenant

    def labels(self, *values: object) -> Any:
        return self._family.labels(self._tenant, *values)

    def remove(self, *values: object) -> None:
        self._family.remove(self._tenant, *values)


class _SamplesOfTenant:
    """Of what is exposed, the tenant's and nobody else's."""

    def __init__(self, exposed: CollectorRegistry, tenant: str) -> None:
        self._exposed = exposed
        self._tenant = tenant

    def collect(self) -> Iterator[Metric]:
        for metric in self._exposed.collect():
            metric.samples = [s for s in metric.samples if s.labels.get(TENANT) == self._tenant]
            if metric.samples:
                yield metric


class MetricGroup:
    def __init__(self, exposition: Exposition, tenant: str | None = None) -> None:
        """tenant: the value of the label `tenant`; with None, the metrics have no such label.

        The empty value is for what is nobody's: to Prometheus it is as if there were no label.
        """
        exposition.groups.append(self)
        self.are_shared = exposition.are_shared
        self.registry = exposition.registry
        self._exposition = exposition
        self._tenant = tenant
        self._buffered: list[BufferedCounter | BufferedHistogram] = []
        self._gauge_callbacks: list[tuple[Gauge, Callable[[], float]]] = []
        self._counter_callbacks: list[tuple[Counter, Callable[[], float], list[float]]] = []

    def create(
        self, kind: type[M], name: str, text: str, labels: Sequence[str] = (), **options: Any
    ) -> M:
        """A metric without labels, or one whose `labels` gives those with them."""
        if self._tenant is None:
            metric = self._exposition.family(kind, name, text, labels, **options)
            self._note(metric)
            return metric
        family = self._exposition.family(kind, name, text, (TENANT, *labels), **options)
        self._note(family)
        part = TenantFamily(family, self._tenant) if labels else family.labels(self._tenant)
        return cast(M, part)

    def _note(self, metric: MetricWrapperBase) -> None:
        if isinstance(metric, BufferedCounter | BufferedHistogram):
            self._buffered.append(metric)

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return self.create(Counter, name, text, labels)

    def _request_counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """One that the event loop raises, for every request."""
        return self.create(BufferedCounter, name, text, labels)

    def _gauge(
        self, name: str, text: str, combination: Combination, labels: Sequence[str] = ()
    ) -> Gauge:
        return self.create(Gauge, name, text, labels, multiprocess_mode=combination)

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        return self.create(BufferedHistogram, name, text, labels, buckets=buckets)

    def add_gauge_callback(self, gauge: Gauge, value: Callable[[], float]) -> None:
        """Set the gauge to value() at each `poll`."""
        self._gauge_callbacks.append((gauge, value))

    def add_counter_callback(self, counter: Counter, total: Callable[[], float]) -> None:
        """Raise the counter by what total() has grown since, at each `poll`."""
        self._counter_callbacks.append((counter, total, [total()]))

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
        """In Prometheus's text format: of a tenant its own metrics alone, else all there are."""
        exposed = self._exposition.exposed
        if self._tenant:
            self.poll()
            # Only `collect` is used of a registry.
            exposed = cast(CollectorRegistry, _SamplesOfTenant(exposed, self._tenant))
        else:
            for group in self._exposition.groups:
                group.poll()
        return generate_latest(exposed)

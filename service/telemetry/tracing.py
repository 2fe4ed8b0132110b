"""OpenTelemetry traces: one span for each request and one for each of its stages."""

import time
from collections.abc import Mapping, Sequence
from typing import IO, Literal, Protocol, cast

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
)
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.telemetry.output import LineWriter

_SERVICE = "re4"
_STDOUT = 1
_DRAIN_S = 1.0
_FIRST_ERROR_STATUS = 500


class TracedRequest(Protocol):
    """received_at: on the clock of time.perf_counter, as start and end of (name, start, end)."""

    @property
    def received_at(self) -> float: ...

    @property
    def headers(self) -> Mapping[bytes, bytes]: ...

    @property
    def request_id(self) -> bytes: ...

    @property
    def stages(self) -> Sequence[tuple[str, float, float]] | None: ...


class Tracing:
    """Creates the spans after the response is sent, so that tracing delays no response."""

    def __init__(self, exporter: Literal["otlp", "console"], tenant: str | None = None) -> None:
        """tenant: of several in this process, an attribute of all its spans."""
        attributes = {"service.name": _SERVICE} | ({"tenant": tenant} if tenant else {})
        resource = Resource.create(attributes)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._stdout = LineWriter(_STDOUT)
        self._provider.add_span_processor(_processor(exporter, self._stdout))
        self._tracer = self._provider.get_tracer(_SERVICE)
        self._propagator = TraceContextTextMapPropagator()

    def record(self, request: TracedRequest, name: str, status: int) -> None:
        """name: method and route. No other part of what the client sent is in a span."""
        offset_s = time.time() - time.perf_counter()
        traceparent = request.headers.get(b"traceparent", b"").decode("latin-1")
        parent = self._propagator.extract({"traceparent": traceparent})
        span = self._tracer.start_span(
            name, parent, SpanKind.SERVER, start_time=_ns(request.received_at, offset_s)
        )
        if span.is_recording():
            span.set_attribute("http.response.status_code", status)
            span.set_attribute("request.id", request.request_id.decode("ascii"))
            if status >= _FIRST_ERROR_STATUS:
                span.set_status(Status(StatusCode.ERROR))
            span_context = set_span_in_context(span)
            for stage, start, end in request.stages or ():
                child = self._tracer.start_span(
                    stage, span_context, start_time=_ns(start, offset_s)
                )
                child.end(_ns(end, offset_s))
        span.end()

    def close(self) -> None:
        """Send the remaining spans. Blocks."""
        self._provider.shutdown()
        self._stdout.drain(_DRAIN_S)


def _processor(exporter: Literal["otlp", "console"], stdout: LineWriter) -> SpanProcessor:
    if exporter == "console":
        return SimpleSpanProcessor(ConsoleSpanExporter(out=cast(IO[str], stdout)))
    return BatchSpanProcessor(OTLPSpanExporter())


def _ns(seconds: float, offset_s: float) -> int:
    return int((seconds + offset_s) * 1e9)

"""OpenTelemetry traces: a span for each request, and one for each of its stages."""

import time
from typing import Literal

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

from service.http.request_context import RequestContext

_SERVICE = "re4"
_BUG = 500


class Tracing:
    """Makes the spans when the answer has gone: nothing is in the way of a request meanwhile."""

    def __init__(self, exporter: Literal["otlp", "console"]) -> None:
        resource = Resource.create({"service.name": _SERVICE})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(_processor(exporter))
        self._tracer = self._provider.get_tracer(_SERVICE)
        self._propagator = TraceContextTextMapPropagator()

    def record(self, arrival: RequestContext, name: str, status: int) -> None:
        """name: the method and route; no span holds anything else of what a client sent."""
        offset_s = time.time() - time.perf_counter()
        given = arrival.headers.get(b"traceparent", b"").decode("latin-1")
        parent = self._propagator.extract({"traceparent": given})
        span = self._tracer.start_span(
            name, parent, SpanKind.SERVER, start_time=_ns(arrival.at, offset_s)
        )
        if span.is_recording():
            span.set_attribute("http.response.status_code", status)
            span.set_attribute("request.id", arrival.request_id.decode("ascii"))
            if status >= _BUG:
                span.set_status(Status(StatusCode.ERROR))
            within = set_span_in_context(span)
            for stage, start, end in arrival.stages or ():
                child = self._tracer.start_span(stage, within, start_time=_ns(start, offset_s))
                child.end(_ns(end, offset_s))
        span.end()

    def close(self) -> None:
        """Send what has not been sent. Blocks."""
        self._provider.shutdown()


def _processor(exporter: Literal["otlp", "console"]) -> SpanProcessor:
    if exporter == "console":
        return SimpleSpanProcessor(ConsoleSpanExporter())
    return BatchSpanProcessor(OTLPSpanExporter())


def _ns(moment: float, offset_s: float) -> int:
    return int((moment + offset_s) * 1e9)

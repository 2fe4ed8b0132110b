"""What surrounds every request: its id, its count, its line in the log, and errors of our own."""

import logging
import time
from typing import TYPE_CHECKING

from prometheus_client import Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.request_context import RequestContext, arrived
from service.http.state import error_response
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:  # it is there with its extra alone
    from service.telemetry.tracing import Tracing

log = logging.getLogger(__name__)


class RequestMiddleware:
    """Pure ASGI: starlette's own base for middleware takes as long as half of all the rest."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, access_log: bool, tracing: "Tracing | None"
    ) -> None:
        self._app = app
        self._requests = metrics.requests
        self._counters: dict[tuple[str, int], Counter] = {}  # looked up once, not each time
        self._access_log = access_log
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["arrival"] = arrival = arrived(scope["headers"])
        if self._tracing is not None:
            arrival.stages = []
        status = 0

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", arrival.request_id),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            log.exception("request failed", extra=_facts(scope, arrival))
            if status:
                raise
            await error_response(error)(scope, receive, watched_send)
        finally:
            if status:
                self._tell(scope, arrival, status)

    def _tell(self, scope: Scope, arrival: RequestContext, status: int) -> None:
        route = route_of(scope)
        counter = self._counters.get((route, status))
        if counter is None:
            counter = self._counters[route, status] = self._requests.labels(route, status)
        counter.inc()
        if self._access_log:
            took_ms = round((time.perf_counter() - arrival.at) * 1e3, 3)
            log.info("request", extra={**_facts(scope, arrival), "status": status, "ms": took_ms})
        if self._tracing is not None:
            self._tracing.record(arrival, f"{scope['method']} {route}", status)


def _facts(scope: Scope, arrival: RequestContext) -> dict[str, str]:
    """What of a request may stand in a log: nothing in which an id could be."""
    return {
        "method": scope["method"],
        "route": route_of(scope),
        "request_id": arrival.request_id.decode("ascii"),
    }


def route_of(scope: Scope) -> str:
    """The path as it was declared; not as it was asked for, of which there is no end."""
    return getattr(scope.get("route"), "path_format", "other")

"""The middleware around every request: request id, metrics, access log, traces and errors."""

import logging
import time
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.request_context import RequestContext, add_request_context
from service.http.responses import error_response
from service.telemetry.metrics import RequestCounts

if TYPE_CHECKING:  # needs the extra `tracing`
    from service.telemetry.tracing import Tracing

log = logging.getLogger(__name__)


class RequestMiddleware:
    """Pure ASGI: starlette's middleware base class takes half as long as all other work."""

    def __init__(
        self, app: ASGIApp, metrics: RequestCounts, access_log: bool, tracing: "Tracing | None"
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._access_log = access_log
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = add_request_context(scope)
        if self._tracing is not None:
            context.stages = []
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", context.request_id),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            fields = context.log_fields(scope["method"], route_of(scope))
            log.exception("request failed", extra=fields)
            if status:
                raise
            await error_response(error)(scope, receive, send_with_headers)
        finally:
            if status:
                self._record(scope, context, status)

    def _record(self, scope: Scope, context: RequestContext, status: int) -> None:
        """Count, log and trace a request whose response has started."""
        route = route_of(scope)
        self._metrics.count_request(route, status)
        if self._access_log:
            duration_ms = round((time.perf_counter() - context.received_at) * 1e3, 3)
            fields = {
                **context.log_fields(scope["method"], route),
                "status": status,
                "ms": duration_ms,
            }
            log.info("request", extra=fields)
        if self._tracing is not None:
            self._tracing.record(context, f"{scope['method']} {route}", status)


def route_of(scope: Scope) -> str:
    """The path template of the route, so that the number of label values is bounded."""
    return getattr(scope.get("route"), "path_format", "other")

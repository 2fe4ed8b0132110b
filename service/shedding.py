"""The cheapest refusals, before the framework sees a request: while the engine is full; of a head
without end.

Under several times the load that can be answered, refusing is most of the work there is, and takes
its time from the answers. Whatever is not a plain POST /recommend goes the usual way; what is
refused here has no request id, which would cost as much again.
"""

from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import HeadTooLargeError, OverloadedError, ServiceError, tell
from service.parts import Service

_ROUTE = "/recommend"
_URL = _ROUTE.encode()


class SheddingProtocol(HttpToolsProtocol):
    """uvicorn's, but for what it refuses itself.

    The parser's word is taken for where a request ends, so nothing is left over for the next."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._service: Service = self.config.app.state.service  # type: ignore[union-attr]
        metrics = self._service.metrics
        self._counters = metrics.requests.labels(_ROUTE, 503), metrics.refused["shed"]
        # Every request is to have its line in the log, or its trace, if there are any.
        settings = self._service.settings
        self._may_shed = not (settings.access_log or settings.tracing)
        self._shedding = False
        self._in_head = True
        self._head_bytes = 0

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > _HEAD_LIMIT_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LONG)
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        # Not those that wait for the engine, where the ones that were read just before are not yet.
        self._shedding = (
            self._may_shed and self._service.sheds(len(self.tasks)) and self._is_plain()
        )
        if not self._shedding:
            super().on_headers_complete()

    def _is_plain(self) -> bool:
        return (
            self.url == _URL
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and (self.cycle is None or self.cycle.response_complete)
        )

    def on_body(self, body: bytes) -> None:
        if not self._shedding:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        if not self._shedding:
            super().on_message_complete()
            return
        self._shedding = False
        self.transport.write(_REFUSAL)
        self.on_response_complete()
        for counter in self._counters:
            counter.inc()


def _refusal(error: ServiceError, reason: str) -> bytes:
    """A whole response."""
    told = tell(error)
    body = orjson.dumps(told.body)
    headers = {
        **told.headers,
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-content-type-options": "nosniff",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {told.status} {reason}\r\n{lines}\r\n".encode() + body


_HEAD_LIMIT_BYTES = 64 * 1024
_REFUSAL = _refusal(
    OverloadedError("queue: full for longer than any deadline; try again later"),
    "Service Unavailable",
)
_TOO_LONG = _refusal(
    HeadTooLargeError(
        f"headers: over {_HEAD_LIMIT_BYTES:,} bytes with the path, the most that is allowed; "
        "send less"
    ),
    "Request Header Fields Too Large",
)

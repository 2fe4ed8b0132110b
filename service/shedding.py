"""The cheapest refusal: while the engine is full, before the framework sees the request.

Under several times the load that can be answered, refusing is most of the work there is, and takes
its time from the answers. Whatever is not a plain POST /recommend goes the usual way; what is
refused here has no request id, which would cost as much again.
"""

from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import OverloadedError, tell
from service.parts import Service

_ROUTE = "/recommend"
_URL = _ROUTE.encode()


class SheddingProtocol(HttpToolsProtocol):
    """The parser's word is taken for where a request ends, so nothing is left over for the next."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._service: Service = self.config.app.state.service  # type: ignore[union-attr]
        metrics = self._service.metrics
        self._counters = metrics.requests.labels(_ROUTE, 503), metrics.refused["shed"]
        self._shedding = False

    def on_headers_complete(self) -> None:
        # Not those that wait for the engine, where the ones that were read just before are not yet.
        self._shedding = self._service.sheds(len(self.tasks)) and self._is_plain()
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
        if not self._shedding:
            super().on_message_complete()
            return
        self._shedding = False
        self.transport.write(_REFUSAL)
        self.on_response_complete()
        for counter in self._counters:
            counter.inc()


def _refusal() -> bytes:
    """A whole response."""
    told = tell(OverloadedError("queue: full for longer than any deadline; try again later"))
    body = orjson.dumps(told.body)
    headers = {
        **told.headers,
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-content-type-options": "nosniff",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {told.status} Service Unavailable\r\n{lines}\r\n".encode() + body


_REFUSAL = _refusal()

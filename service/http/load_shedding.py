"""The cheapest refusals, before the framework sees a request: while the engine is full; of a head
without end.

Under several times the load that can be answered, refusing is most of the work there is, and takes
its time from the answers. Whatever is not a plain POST /recommend goes the usual way; what is
refused here has no request id, which would cost as much again. Callers send the same head again and
again: one that the parser has read and found plain is known by its bytes, and not parsed again.
"""

from typing import Any, ClassVar

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import HeadTooLargeError, OverloadedError, ServiceError, to_response
from service.http.state import Service

_ROUTE = "/recommend"
_URL = _ROUTE.encode()
_END_OF_HEAD = b"\r\n\r\n"
# What is remembered of heads, at the most: their number, and the length of one.
_HEADS = 4096
_HEAD_BYTES = 1024


class SheddingProtocol(HttpToolsProtocol):
    """uvicorn's, but for what it refuses itself.

    The parser's word is taken for where a request ends, so nothing is left over for the next.
    """

    # Plain heads, and the length of the body that each announces.
    _plain_heads: ClassVar[dict[bytes, int]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._service: Service = self.config.app.state.service  # type: ignore[union-attr]
        metrics = self._service.metrics
        self._counters = metrics.requests.labels(_ROUTE, 503), metrics.refused["shed"]
        # Every request is to have its line in the log, or its trace, if there are any.
        settings = self._service.settings
        self._may_shed = not (settings.access_log or settings.tracing)
        self._shedding = False
        self._is_used = False  # since it was last seen to
        self._between = True
        self._in_head = True
        self._head_bytes = 0
        self._data = b""

    def data_received(self, data: bytes) -> None:
        if self._between and self._sheds() and self._is_known(data):
            self._refuse()
            return
        self._data = data if self._between else b""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        self._data = b""
        if self._head_bytes > _HEAD_LIMIT_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LONG)
            self.transport.close()

    def on_message_begin(self) -> None:
        self._between = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        self._shedding = self._sheds() and self._is_plain()
        if not self._shedding:
            super().on_headers_complete()

    def _sheds(self) -> bool:
        # Not those that wait for the engine, where the ones that were read just before are not yet.
        return (
            self._may_shed
            and self._service.sheds(len(self.tasks))
            and (self.cycle is None or self.cycle.response_complete)
        )

    def _is_plain(self) -> bool:
        return (
            self.url == _URL
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
        )

    def _is_known(self, data: bytes) -> bool:
        """Whether this is one whole request, whose head has been found plain before."""
        head, _, body = data.partition(_END_OF_HEAD)
        return self._plain_heads.get(head) == len(body)

    def _remember(self) -> None:
        """The head of the request that has just ended, if that came in one piece and alone."""
        head, _, body = self._data.partition(_END_OF_HEAD)
        announced = dict(self.headers).get(b"content-length")
        if 0 < len(head) <= _HEAD_BYTES and announced == b"%d" % len(body):
            if len(self._plain_heads) >= _HEADS:
                self._plain_heads.clear()
            self._plain_heads[head] = len(body)

    def on_body(self, body: bytes) -> None:
        if not self._shedding:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._between = self._in_head = True
        if not self._shedding:
            super().on_message_complete()
            return
        self._shedding = False
        self._remember()
        self._refuse()

    def _refuse(self) -> None:
        self.transport.write(_REFUSAL)
        self.server_state.total_requests += 1
        for counter in self._counters:
            counter.inc()
        # A new timer for each would cost as much as all else here.
        self._is_used = True
        if self.timeout_keep_alive_task is None:
            self._wait_for_more()

    def timeout_keep_alive_handler(self) -> None:
        if self._is_used:
            self._wait_for_more()
        else:
            super().timeout_keep_alive_handler()

    def _wait_for_more(self) -> None:
        self._is_used = False
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )


def _refusal(error: ServiceError, reason: str) -> bytes:
    """A whole response."""
    told = to_response(error)
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

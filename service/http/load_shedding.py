"""Rejections on the connection itself, before the framework sees the request.

Two kinds: POST /recommend while the engine is full, and headers over the size limit. At several
times the load that can be served, rejecting is most of the work and takes time from the responses.
Only a plain POST /recommend is rejected here; every other request goes through the framework. A
request rejected here gets no request id, which would double the cost. Clients send the same headers
repeatedly: a head that the parser has accepted as plain is recognized by its bytes, and not parsed
again. (A head is the request line and the headers.)
"""

from typing import Any, ClassVar

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import HeadersTooLargeError, OverloadedError, ServiceError, to_response
from service.http.state import ServiceState

_ROUTE = "/recommend"
_URL = _ROUTE.encode()
_END_OF_HEAD = b"\r\n\r\n"
# Limits of the cache of plain heads: how many, and the length of each.
_MAX_CACHED_HEADS = 4096
_MAX_CACHED_HEAD_BYTES = 1024


class SheddingProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with load shedding and a limit on headers.

    The parser alone decides where a request ends, so no bytes are left over for the next one.
    """

    # plain head -> length of the body that it announces
    _plain_heads: ClassVar[dict[bytes, int]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._state: ServiceState = self.config.app.state.service  # type: ignore[union-attr]
        metrics = self._state.metrics
        rejected = metrics.rejected_requests["shed"]
        self._counters = metrics.requests.labels(_ROUTE, 503), rejected
        # With an access log or traces, the middleware must see each request.
        settings = self._state.settings
        self._may_shed = not (settings.access_log or settings.tracing)
        self._shedding = False
        self._used_since_timeout = False
        self._between_requests = True
        self._in_head = True
        self._head_bytes = 0
        self._data = b""

    def data_received(self, data: bytes) -> None:
        if self._between_requests and self._can_shed() and self._is_known_request(data):
            self._reject()
            return
        self._data = data if self._between_requests else b""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        self._data = b""
        if self._head_bytes > _HEAD_LIMIT_BYTES and not self.transport.is_closing():
            self.transport.write(_HEADERS_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        self._between_requests = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        self._shedding = self._can_shed() and self._is_plain()
        if not self._shedding:
            super().on_headers_complete()

    def _can_shed(self) -> bool:
        # Counts the server's tasks, not the engine's queue: requests that have just been read are
        # not in the queue yet.
        return (
            self._may_shed
            and self._state.sheds_load(len(self.tasks))
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

    def _is_known_request(self, data: bytes) -> bool:
        """Whether the data is exactly one request with a plain head seen before."""
        head, _, body = data.partition(_END_OF_HEAD)
        return self._plain_heads.get(head) == len(body)

    def _cache_head(self) -> None:
        """Cache the head of the completed request, if the request arrived alone in one chunk."""
        head, _, body = self._data.partition(_END_OF_HEAD)
        content_length = dict(self.headers).get(b"content-length")
        if 0 < len(head) <= _MAX_CACHED_HEAD_BYTES and content_length == b"%d" % len(body):
            if len(self._plain_heads) >= _MAX_CACHED_HEADS:
                self._plain_heads.clear()
            self._plain_heads[head] = len(body)

    def on_body(self, body: bytes) -> None:
        if not self._shedding:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._between_requests = self._in_head = True
        if not self._shedding:
            super().on_message_complete()
            return
        self._shedding = False
        self._cache_head()
        self._reject()

    def _reject(self) -> None:
        self.transport.write(_OVERLOADED)
        self.server_state.total_requests += 1
        for counter in self._counters:
            counter.inc()
        # A new timer for each request would cost as much as the rest of the rejection.
        self._used_since_timeout = True
        if self.timeout_keep_alive_task is None:
            self._start_keep_alive_timer()

    def timeout_keep_alive_handler(self) -> None:
        if self._used_since_timeout:
            self._start_keep_alive_timer()
        else:
            super().timeout_keep_alive_handler()

    def _start_keep_alive_timer(self) -> None:
        self._used_since_timeout = False
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )


def _response_bytes(error: ServiceError, reason: str) -> bytes:
    """The whole HTTP response to the error. reason: HTTP's reason phrase."""
    response = to_response(error)
    body = orjson.dumps(response.body)
    headers = {
        **response.headers,
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-content-type-options": "nosniff",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {response.status} {reason}\r\n{lines}\r\n".encode() + body


_HEAD_LIMIT_BYTES = 64 * 1024
_OVERLOADED = _response_bytes(
    OverloadedError("queue: full for longer than any deadline; try again later"),
    "Service Unavailable",
)
_HEADERS_TOO_LARGE = _response_bytes(
    HeadersTooLargeError(
        f"headers: over {_HEAD_LIMIT_BYTES:,} bytes with the path, the most that is allowed; "
        "send less"
    ),
    "Request Header Fields Too Large",
)

"""One connection: uvicorn's HTTP protocol for clients that are slow, broken or of another time.

An offer of another protocol is ignored, as HTTP allows, and the request is answered. A head that is
too long or too slow is refused, and what nobody waits for holds no connection. (A head is the
request line and the headers.)
"""

import asyncio
from array import array
from typing import Any, cast

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import (
    HeadersTooLargeError,
    HeadTooSlowError,
    MalformedRequestError,
    ServiceError,
    to_response,
)
from service.http.lingering import LingeringTransport
from service.http.raw_response import response_to
from service.http.state import ServiceState
from service.http.tenants import TenantsState

_HEAD_LIMIT_BYTES = 64 * 1024
_ARRIVAL_TIMEOUT_S = 10.0  # of a head, and of a body that nobody reads
_HEADERS_OF_UPGRADES = (b"upgrade", b"http2-settings")


class ConnectionProtocol(HttpToolsProtocol):
    """What subclasses extend: `on_head` once the head is complete, and `on_end` after the body."""

    transport: Any  # a LingeringTransport

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = _Parser(self)
        self.state: ServiceState | TenantsState = self.config.app.state.service  # type: ignore[union-attr]
        self.is_between_requests = True
        self.idle_since = 0.0  # on the loop's clock: since the last response, or the start
        self._in_head = True
        self._head_bytes = 0
        self._arrival_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        wrapped = LingeringTransport(transport, self.loop, self._is_incomplete)
        super().connection_made(cast(asyncio.Transport, wrapped))
        # From the start, for clients that never send a request. One timer for all requests: a new
        # one for each takes longer than to refuse it.
        self.idle_since = self.loop.time()
        self._start_keep_alive_timer(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport.closed()
        self._stop_arrival_timer()
        super()._unset_keepalive_if_required()
        super().connection_lost(exc)

    def _unset_keepalive_if_required(self) -> None:
        """Nothing: uvicorn stops its timer here, for each request."""

    def on_response_complete(self) -> None:
        """As uvicorn's, but that the timer of an idle connection goes on."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.idle_since = self.loop.time()
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def timeout_keep_alive_handler(self) -> None:
        is_idle = (self.cycle is None or self.cycle.response_complete) and not self._is_incomplete()
        left_s = self.timeout_keep_alive - is_idle * (self.loop.time() - self.idle_since)
        if left_s > 0:
            self._start_keep_alive_timer(left_s)
        else:
            super().timeout_keep_alive_handler()

    def _start_keep_alive_timer(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.stop()
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        if self.transport.lingers:
            self.transport.drop(data)
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > _HEAD_LIMIT_BYTES and not self.transport.is_closing():
            self.refuse(
                HeadersTooLargeError(
                    f"headers: over {_HEAD_LIMIT_BYTES:,} bytes with the path, the most that is "
                    "allowed; send less"
                )
            )
        if self._arrival_timer is None and self._is_incomplete():
            self._start_arrival_timer()

    def _is_incomplete(self) -> bool:
        """Whether a request has begun and is not complete; empty lines begin one, too."""
        return not self.is_between_requests or (self._in_head and self._head_bytes > 0)

    def on_message_begin(self) -> None:
        self.is_between_requests = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self.parser.get_method() != b"CONNECT":
                return  # the parser goes on with a head that offers no upgrade
            self.expect_100_continue = False
        self._in_head, self._head_bytes = False, 0
        self._stop_arrival_timer()
        self.on_head()

    def on_head(self) -> None:
        super().on_headers_complete()
        if self.parser.get_method() == b"CONNECT":
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        if self._in_head:
            return  # an upgrade was offered
        self.is_between_requests = self._in_head = True
        self._stop_arrival_timer()
        self.on_end()

    def on_end(self) -> None:
        super().on_message_complete()

    def head_without_upgrade(self) -> bytes:
        """The head that was just parsed, without its offer of another protocol; CONNECT has none.

        Raises nothing: the parser has accepted every part of it.
        """
        if self.parser.get_method() == b"CONNECT":
            return b""
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name in _HEADERS_OF_UPGRADES:
                continue
            if name == b"connection":
                value = b", ".join(
                    token
                    for token in map(bytes.strip, value.split(b","))
                    if token.lower() not in _HEADERS_OF_UPGRADES
                )
            lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join((*lines, b"", b""))

    def send_400_response(self, msg: str) -> None:
        self.refuse(
            MalformedRequestError(
                "request: not valid HTTP/1.1; check the request line, the headers and the length "
                "of the body"
            )
        )

    def refuse(self, error: ServiceError) -> None:
        """Send the error on the connection, and close it."""
        response = response_to(error, self.cross_origin_headers(self.state))
        self.state.metrics.requests.labels("other", to_response(error).status).inc()
        self.transport.write(response)
        self.transport.close()

    def cross_origin_headers(
        self, target: ServiceState | TenantsState
    ) -> tuple[tuple[str, str], ...]:
        """The headers that let a page of the request's origin read the target's response."""
        if target.cross_origin is None:
            return ()
        origin = dict(self.headers or ()).get(b"origin")
        return target.cross_origin.headers_for(origin)

    def _start_arrival_timer(self) -> None:
        self._arrival_timer = self.loop.call_later(_ARRIVAL_TIMEOUT_S, self._on_late_arrival)

    def _stop_arrival_timer(self) -> None:
        if self._arrival_timer is not None:
            self._arrival_timer.cancel()
            self._arrival_timer = None

    def _on_late_arrival(self) -> None:
        self._arrival_timer = None
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._start_arrival_timer()  # an endpoint reads the body, with a time limit of its own
        elif self._in_head:
            self.refuse(
                HeadTooSlowError(
                    f"headers: not complete after {_ARRIVAL_TIMEOUT_S:g} s; send them faster"
                )
            )
        else:
            self.transport.stop()


class _Parser(HttpRequestParser):
    """Ends no request at its head because it offers another protocol, as httptools does.

    Java's HttpClient offers HTTP/2 with each request, curl with --http2.
    """

    def __init__(self, protocol: ConnectionProtocol) -> None:
        super().__init__(protocol)
        self._protocol = protocol
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does

    def feed_data(self, data: "bytes | bytearray | memoryview[int] | array[int]") -> None:
        while data:
            try:
                super().feed_data(data)
            except HttpParserUpgrade as upgrade:
                data = memoryview(data)[upgrade.args[0] :]
                head = self._protocol.head_without_upgrade()
                if not head:
                    return
                super().feed_data(head)
            else:
                return

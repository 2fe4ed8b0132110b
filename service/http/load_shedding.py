"""Rejections of POST /recommend while the engine is full, before the framework sees the request.

At several times the load that can be served, rejecting is most of the work and takes time from the
responses. Only a plain POST /recommend is rejected here; every other request goes through the
framework. A request rejected here gets no request id, which would double the cost. Clients send the
same headers repeatedly: a head that the parser has accepted as plain is recognized by its bytes,
and not parsed again. (A head is the request line and the headers.)
"""

from functools import lru_cache
from typing import Any

from service.errors import OverloadedError
from service.http.direct import DirectProtocol
from service.http.endpoints.recommend import ROUTE
from service.http.raw_response import response_to

_END_OF_HEAD = b"\r\n\r\n"
# Limits of the cache of plain heads: how many, and the length of each.
_MAX_CACHED_HEADS = 4096
_MAX_CACHED_HEAD_BYTES = 1024


@lru_cache(maxsize=256)
def _overloaded(headers: tuple[tuple[str, str], ...]) -> bytes:
    error = OverloadedError("queue: full for longer than any deadline; try again later")
    return response_to(error, headers)


class SheddingProtocol(DirectProtocol):
    """The protocol of a connection, with load shedding.

    The parser alone decides where a request ends, so no bytes are left over for the next one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        metrics = self.state.metrics
        self._counters = metrics.requests.labels(ROUTE, 503), metrics.rejected_requests["shed"]
        # plain head -> length of the body that it announces, and the response to it
        self._plain_heads = self.state.plain_heads
        # With an access log or traces, the middleware must see each request.
        settings = self.state.settings
        self._may_shed = not (settings.access_log or settings.tracing)
        self._shedding = False
        self._data = b""

    def data_received(self, data: bytes) -> None:
        if self.is_between_requests and self._can_shed() and self._reject_known_request(data):
            return
        self._data = data if self.is_between_requests else b""
        super().data_received(data)
        self._data = b""

    def on_head(self) -> None:
        self._shedding = self._can_shed() and self.is_plain()
        if not self._shedding:
            super().on_head()

    def _can_shed(self) -> bool:
        # Counts the server's tasks, not the engine's queue: requests that have just been read are
        # not in the queue yet.
        return (
            self._may_shed
            and self.state.sheds_load(len(self.tasks))
            and (self.cycle is None or self.cycle.response_complete)
            and not self.transport.lingers  # a connection that closes otherwise reads nothing
        )

    def _reject_known_request(self, data: bytes) -> bool:
        """Reject the data if it is exactly one request with a plain head seen before."""
        head, _, body = data.partition(_END_OF_HEAD)
        length, response = self._plain_heads.get(head, (-1, b""))
        if length != len(body):
            return False
        self._reject(response)
        return True

    def _cache_head(self, response: bytes) -> None:
        """Cache the head of the completed request, if the request arrived alone in one chunk."""
        head, _, body = self._data.partition(_END_OF_HEAD)
        content_length = dict(self.headers).get(b"content-length")
        if 0 < len(head) <= _MAX_CACHED_HEAD_BYTES and content_length == b"%d" % len(body):
            if len(self._plain_heads) >= _MAX_CACHED_HEADS:
                self._plain_heads.clear()
            self._plain_heads[head] = len(body), response

    def on_body(self, body: bytes) -> None:
        if not self._shedding:
            super().on_body(body)

    def on_end(self) -> None:
        if not self._shedding:
            super().on_end()
            return
        self._shedding = False
        response = _overloaded(self.cross_origin_headers())
        self._cache_head(response)
        self._reject(response)

    def _reject(self, response: bytes) -> None:
        self.transport.write(response)
        for counter in self._counters:
            counter.inc()
        self.idle_since = self.loop.time()

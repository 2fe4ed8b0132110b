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
from service.http.state import ServiceState

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
        self._only = self.state if isinstance(self.state, ServiceState) else None
        self._plain_heads = self.state.plain_heads
        # With an access log or traces, the middleware must see each request.
        settings = self.state.settings
        self._may_shed = not (settings.access_log or settings.tracing)
        self._shedding: ServiceState | None = None  # whose request is being rejected
        self._data = b""

    def data_received(self, data: bytes) -> None:
        if self.is_between_requests and self._may_reject() and self._reject_known_request(data):
            return
        self._data = data if self.is_between_requests else b""
        super().data_received(data)
        self._data = b""

    def on_head(self) -> None:
        target = self.plain_target()
        self._shedding = target if target is not None and self._can_shed(target) else None
        if self._shedding is None:
            super().on_head()

    def _may_reject(self) -> bool:
        """Whether the head of a request is worth looking up."""
        return bool(self._plain_heads) and (self._only is None or self._can_shed(self._only))

    def _can_shed(self, target: ServiceState) -> bool:
        # Counts the server's tasks, or the tenant's, not the engine's queue: requests that have
        # just been read are not in the queue yet.
        tasks = self.tasks if target.tenant is None else target.tasks
        return (
            self._may_shed
            and target.sheds_load(len(tasks))
            and (self.cycle is None or self.cycle.response_complete)
            and not self.transport.lingers  # a connection that closes otherwise reads nothing
        )

    def _reject_known_request(self, data: bytes) -> bool:
        """Reject the data if it is exactly one request with a plain head seen before."""
        head, _, body = data.partition(_END_OF_HEAD)
        known = self._plain_heads.get(head)
        if known is None:
            return False
        length, response, target = known
        if length != len(body) or not self._can_shed(target):
            return False
        self._reject(response, target)
        return True

    def _cache_head(self, response: bytes, target: ServiceState) -> None:
        """Cache the head of the completed request, if the request arrived alone in one chunk."""
        head, _, body = self._data.partition(_END_OF_HEAD)
        content_length = dict(self.headers).get(b"content-length")
        if 0 < len(head) <= _MAX_CACHED_HEAD_BYTES and content_length == b"%d" % len(body):
            if len(self._plain_heads) >= _MAX_CACHED_HEADS:
                self._plain_heads.clear()
            self._plain_heads[head] = len(body), response, target

    def on_body(self, body: bytes) -> None:
        if self._shedding is None:
            super().on_body(body)

    def on_end(self) -> None:
        if (target := self._shedding) is None:
            super().on_end()
            return
        self._shedding = None
        response = _overloaded(self.cross_origin_headers(target))
        self._cache_head(response, target)
        self._reject(response, target)

    def _reject(self, response: bytes, target: ServiceState) -> None:
        self.transport.write(response)
        target.metrics.count_request(ROUTE, 503)
        target.metrics.rejected_requests["shed"].inc()
        self.idle_since = self.loop.time()

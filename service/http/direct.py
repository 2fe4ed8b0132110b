"""Answers to POST /recommend straight from the connection, past the framework.

The framework, and uvicorn's side of it, take longer than all that is done for the answer. Only what
is plain is answered here: a POST /recommend that arrived in one piece, with a valid body and no
headers that the middleware looks at. Anything else is handed to the framework as it came, so that
what is invalid is refused in one place.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from service.errors import EXPECTED_ERRORS, to_response
from service.http.connection import ConnectionProtocol
from service.http.endpoints.recommend import PERMISSION, ROUTE, recommended
from service.http.raw_response import raw_response
from service.http.request_context import RequestContext, create_request_context
from service.http.schemas.recommend import RecommendRequest
from service.http.state import ServiceState

_URL = ROUTE.encode()
_JSON = b"application/json"
# For the framework: requests of pages of other origins, and compressed ones.
_UNUSUAL_HEADERS = (b"origin", b"content-encoding")
_BODY = TypeAdapter(RecommendRequest)

log = logging.getLogger(__name__)

_Response = tuple[int, Iterable[tuple[str, str]], bytes]


class Exchange:
    """A request and its response, with what uvicorn reads and sets of those of the framework."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete")

    def __init__(self, message_event: asyncio.Event) -> None:
        self.message_event = message_event  # nobody waits for it
        self.disconnected = self.response_complete = False
        self.keep_alive = True

    def is_disconnected(self) -> bool:
        return self.disconnected


class DirectProtocol(ConnectionProtocol):
    """The protocol of a connection, with direct answers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = self.state.settings
        # The middleware must see each request that it logs or traces, or whose client it looks up.
        self._is_direct = not (settings.access_log or settings.tracing or settings.trusted_proxies)
        self._target: ServiceState | None = None  # who answers the request that is held
        self._held: bytes | None = None  # the body so far, while the framework was given nothing
        self._event = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._held is not None:  # the rest may be slow to come
            self._pass_on(self._held)

    def on_head(self) -> None:
        target = self.plain_target() if self._is_direct else None
        if target is not None and self._has_usual_headers(target):
            self._target, self._held = target, b""
        else:
            super().on_head()

    def on_body(self, body: bytes) -> None:
        if self._held is None:
            super().on_body(body)
        else:
            self._held += body

    def on_end(self) -> None:
        if (body := self._held) is not None:
            if self._answer(body):
                self._held = None
                return
            self._pass_on(body)
        super().on_end()

    def plain_target(self) -> ServiceState | None:
        """Who answers, if the head is that of a POST /recommend and the connection is free."""
        if not self.url.endswith(_URL):
            return None
        target = self.state.parts.get(self.url[: -len(_URL)])
        return target if target is not None and self._is_plain() else None

    def _is_plain(self) -> bool:
        return (
            self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.expect_100_continue
            and (self.cycle is None or self.cycle.response_complete)
            and not self.transport.is_closing()
        )

    def _has_usual_headers(self, target: ServiceState) -> bool:
        for name, value in self.headers:
            if name in _UNUSUAL_HEADERS or (name == b"content-type" and value != _JSON):
                return False
        hosts = target.hosts
        return not target.draining and (hosts is None or hosts.allow(self.headers))

    def _pass_on(self, body: bytes) -> None:
        self._held = None
        super().on_head()
        if body:
            super().on_body(body)

    def _answer(self, content: bytes) -> bool:
        """Have the request answered; False, and nothing is done, if its body is not valid."""
        body, target = _validated(content), self._target
        if body is None or target is None:
            return False
        context = create_request_context(self.headers, *(self.client or ())[:1])
        exchange = Exchange(self._event)
        self.cycle = exchange  # type: ignore[assignment]
        task = self.loop.create_task(
            self._respond(target, exchange, context, body),
            context=target.context and target.context.copy(),
        )
        for tasks in (self.tasks, target.tasks):
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        return True

    async def _respond(
        self,
        target: ServiceState,
        exchange: Exchange,
        context: RequestContext,
        body: RecommendRequest,
    ) -> None:
        status, headers, content = await _response(target, exchange, context, body)
        target.metrics.count_request(ROUTE, status)
        if self.flow.write_paused and not exchange.disconnected:
            await self.flow.drain()
        if exchange.disconnected:
            return
        headers = [*headers, ("x-request-id", context.request_id.decode("ascii"))]
        closes = not exchange.keep_alive
        if closes and not target.draining:  # which says so in every response
            headers.append(("connection", "close"))
        self.transport.write(
            raw_response(status, self.server_state.default_headers, headers, content)
        )
        exchange.response_complete = True
        if closes or target.draining:
            self.transport.close()
        self.on_response_complete()


async def _response(
    target: ServiceState, exchange: Exchange, context: RequestContext, body: RecommendRequest
) -> _Response:
    """Status, headers and body; whatever happens, as the framework's handlers have it."""
    authorization = context.headers.get(b"authorization", b"")
    try:
        target.authorizer.authorize(PERMISSION, authorization, context.client_address)
        content, timing = await recommended(target, context, body, exchange.is_disconnected)
        context.check_deadline()
    except Exception as error:
        if not isinstance(error, EXPECTED_ERRORS):
            log.exception("request failed", extra=context.log_fields("POST", ROUTE))
        response = to_response(error)
        return response.status, response.headers.items(), orjson.dumps(response.body)
    return 200, (("server-timing", timing),), content


def _validated(content: bytes) -> RecommendRequest | None:
    try:
        return _BODY.validate_json(content)
    except ValidationError:
        return None

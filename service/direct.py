"""A route with nothing between the request and its endpoint but the check of the body."""

import asyncio
from typing import Any

from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from service.errors import BodyTooLargeError, BodyTooSlowError, ClientGoneError, invalid_body
from service.schemas.common import BODY_LIMIT_BYTES

_BODY_TIMEOUT_S = 10.0


class DirectRoute(APIRoute):
    """An endpoint that is given the request, and the valid body if it declares one.

    FastAPI reads its signature for the documentation. FastAPI's own way from request to response
    takes about as long as all the rest of the web layer, for things that are not needed here.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        declared: Any = self.body_field and self.body_field.field_info.annotation
        self._body = TypeAdapter[Any](declared) if declared else None
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        if self._body is None:
            response = await self.endpoint(request)
        else:
            response = await self.endpoint(request, _valid(self._body, await _read_body(request)))
        await response(scope, receive, send)


def _valid(adapter: TypeAdapter[Any], body: bytes) -> Any:
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise invalid_body(error) from None


async def _read_body(request: Request) -> bytes:
    """All of the body, in however many pieces; refused as soon as it is too long."""
    body, more = _grown(b"", await request.receive())
    if not more:
        return body
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            while more:
                body, more = _grown(body, await request.receive())
    except TimeoutError:
        raise BodyTooSlowError(
            f"body: not complete after {_BODY_TIMEOUT_S:g} s; send it faster"
        ) from None
    return body


def _grown(body: bytes, message: Message) -> tuple[bytes, bool]:
    """The body with the piece that has arrived, and whether there is more to come."""
    if message["type"] == "http.disconnect":
        raise ClientGoneError("client: hung up before its body was complete")
    body += message.get("body", b"")
    if len(body) > BODY_LIMIT_BYTES:
        raise BodyTooLargeError(
            f"body: over {BODY_LIMIT_BYTES:,} bytes, the most that is allowed; send less at once"
        )
    return body, message.get("more_body", False)

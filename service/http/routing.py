"""A route with nothing between request and endpoint but the door and the check of the body."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from fastapi.dependencies.utils import request_params_to_args
from fastapi.params import Depends, Security
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from service.auth.authorization import Authorizer, Permission
from service.errors import (
    BodyTooLargeError,
    BodyTooSlowError,
    ClientGoneError,
    invalid,
    invalid_body,
)
from service.http.request_context import request_context_of
from service.http.schemas.common import BODY_LIMIT_BYTES
from service.http.state import service_of

_BODY_TIMEOUT_S = 10.0


class DirectRoute(APIRoute):
    """An endpoint that is given the request, and the valid body and parameters that it declares.

    FastAPI reads its signature for the documentation. FastAPI's own way from request to response
    takes about as long as all the rest of the web layer, for things that are not needed here.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        declared: Any = self.body_field and self.body_field.field_info.annotation
        self._body = TypeAdapter[Any](declared) if declared else None
        self._limit_bytes: int = getattr(declared, "LIMIT_BYTES", BODY_LIMIT_BYTES)
        self._parameters = bool(self.dependant.path_params or self.dependant.query_params)
        self._access = _access(self.dependencies)
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        _authorize(service_of(request).door, self._access, scope)
        given = self._given(request) if self._parameters else {}
        if self._body is None:
            response = await self.endpoint(request, **given)
        else:
            body = _valid(self._body, await _read_body(request, self._limit_bytes))
            response = await self.endpoint(request, body, **given)
        request_context_of(scope).check_deadline()
        await response(scope, receive, send)

    def _given(self, request: Request) -> dict[str, Any]:
        """What stands in the path and the query, by FastAPI's own reading."""
        path, wrong = request_params_to_args(self.dependant.path_params, request.path_params)
        query, also = request_params_to_args(self.dependant.query_params, request.query_params)
        if wrong or also:
            raise invalid([*wrong, *also])
        return {**path, **query}


def _authorize(authorizer: Authorizer, permission: Permission, scope: Scope) -> None:
    if authorizer.allows_all(permission):
        return
    header = request_context_of(scope).headers.get(b"authorization", b"")
    client = scope.get("client")
    authorizer.authorize(permission, header, client[0] if client else "unknown")


def _access(dependencies: Sequence[Depends]) -> Permission:
    """What the route asks of a caller, as the application has declared it."""
    for asked in dependencies:
        if isinstance(asked, Security) and asked.scopes:
            return cast(Permission, asked.scopes[0])
    return "open"


def _valid(adapter: TypeAdapter[Any], body: bytes) -> Any:
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise invalid_body(error) from None


async def _read_body(request: Request, limit_bytes: int) -> bytes:
    """All of the body, in however many pieces; refused as soon as it is too long."""
    body, more = _grown(b"", await request.receive(), limit_bytes)
    if not more:
        return body
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            while more:
                body, more = _grown(body, await request.receive(), limit_bytes)
    except TimeoutError:
        raise BodyTooSlowError(
            f"body: not complete after {_BODY_TIMEOUT_S:g} s; send it faster"
        ) from None
    return body


def _grown(body: bytes, message: Message, limit_bytes: int) -> tuple[bytes, bool]:
    """The body with the piece that has arrived, and whether there is more to come."""
    if message["type"] == "http.disconnect":
        raise ClientGoneError("client: hung up before its body was complete")
    body += message.get("body", b"")
    if len(body) > limit_bytes:
        raise BodyTooLargeError(
            f"body: over {limit_bytes:,} bytes, the most that is allowed; send less at once"
        )
    return body, message.get("more_body", False)

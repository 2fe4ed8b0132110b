"""A route that calls its endpoint directly, after authorization and validation."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from fastapi.dependencies.utils import request_params_to_args
from fastapi.params import Depends, Security
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from service.auth.authorization import Permission
from service.errors import (
    BodyTooLargeError,
    BodyTooSlowError,
    ClientDisconnectedError,
    invalid_body,
    invalid_request,
)
from service.http.request_context import request_context_of
from service.http.schemas.common import BODY_LIMIT_BYTES
from service.http.state import state_of

_BODY_TIMEOUT_S = 10.0


class DirectRoute(APIRoute):
    """Calls the endpoint with the request, and the validated body and parameters it declares.

    FastAPI reads the endpoint's signature for the documentation only. FastAPI's own request
    handling takes about as long as all the rest of the web layer, for features not used here.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        body_model: Any = self.body_field and self.body_field.field_info.annotation
        self._body_adapter = TypeAdapter[Any](body_model) if body_model else None
        self._body_limit_bytes: int = getattr(body_model, "LIMIT_BYTES", BODY_LIMIT_BYTES)
        self._has_parameters = bool(self.dependant.path_params or self.dependant.query_params)
        self._permission = _permission(self.dependencies)
        self.app = self._handle

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        context = request_context_of(scope)
        authorization = context.headers.get(b"authorization", b"")
        authorizer = state_of(request).authorizer
        authorizer.authorize(self._permission, authorization, context.client_address)
        parameters = self._parameters(request) if self._has_parameters else {}
        if self._body_adapter is None:
            response = await self.endpoint(request, **parameters)
        else:
            content = await _read_body(request, self._body_limit_bytes)
            body = _validate(self._body_adapter, content)
            response = await self.endpoint(request, body, **parameters)
        context.check_deadline()
        await response(scope, receive, send)

    def _parameters(self, request: Request) -> dict[str, Any]:
        """The path and query parameters, validated by FastAPI."""
        path, path_errors = request_params_to_args(self.dependant.path_params, request.path_params)
        query, query_errors = request_params_to_args(
            self.dependant.query_params, request.query_params
        )
        if path_errors or query_errors:
            raise invalid_request([*path_errors, *query_errors])
        return {**path, **query}


def _permission(dependencies: Sequence[Depends]) -> Permission:
    """The permission that the application declares for the route."""
    for dependency in dependencies:
        if isinstance(dependency, Security) and dependency.scopes:
            return cast(Permission, dependency.scopes[0])
    return "open"


def _validate(adapter: TypeAdapter[Any], body: bytes) -> Any:
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise invalid_body(error) from None


async def _read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body; raises as soon as it is over the limit.

    Raises BodyTooLargeError, BodyTooSlowError or ClientDisconnectedError.
    """
    body, more = _append(b"", await request.receive(), limit_bytes)
    if not more:
        return body
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            while more:
                body, more = _append(body, await request.receive(), limit_bytes)
    except TimeoutError:
        raise BodyTooSlowError(
            f"body: not complete after {_BODY_TIMEOUT_S:g} s; send it faster"
        ) from None
    return body


def _append(body: bytes, message: Message, limit_bytes: int) -> tuple[bytes, bool]:
    """The body with the chunk of the message, and whether more chunks follow."""
    if message["type"] == "http.disconnect":
        raise ClientDisconnectedError("client: disconnected before its body was complete")
    body += message.get("body", b"")
    if len(body) > limit_bytes:
        raise BodyTooLargeError(
            f"body: over {limit_bytes:,} bytes, the most that is allowed; send less at once"
        )
    return body, message.get("more_body", False)

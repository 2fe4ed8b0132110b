"""A route that calls its endpoint directly, after authorization and validation."""

from collections.abc import Sequence
from typing import Any, cast

from fastapi.dependencies.utils import request_params_to_args
from fastapi.params import Depends, Security
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from service.auth.authorization import Permission
from service.errors import InvalidRequestError, Problem, invalid_body, invalid_request
from service.http.body import read_body
from service.http.request_context import request_context_of
from service.http.state import state_of

_MAX_NAME_CHARACTERS = 40  # in an error message
_MAX_PROBLEMS = 5


class DirectRoute(APIRoute):
    """Calls the endpoint with the request, and the validated body and parameters it declares.

    FastAPI reads the endpoint's signature for the documentation only. FastAPI's own request
    handling takes about as long as all the rest of the web layer, for features not used here.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        body_model: Any = self.body_field and self.body_field.field_info.annotation
        self._body_adapter = TypeAdapter[Any](body_model) if body_model else None
        self._has_parameters = bool(self.dependant.path_params or self.dependant.query_params)
        self._query_names = frozenset(field.alias for field in self.dependant.query_params)
        self._permission = _permission(self.dependencies)
        # As HTTP demands; apart from `methods`, which the documentation lists.
        methods = self.methods or set()
        self._allowed = methods | {"HEAD"} if "GET" in methods else methods
        self.app = self._handle

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in self._allowed:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self._allowed))})
        await self.app(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        context = request_context_of(scope)
        authorization = context.headers.get(b"authorization", b"")
        authorizer = state_of(request).authorizer
        caller = authorizer.authorize(self._permission, authorization, context.client_address)
        if scope["query_string"]:
            self._check_query(request)
        parameters = self._parameters(request) if self._has_parameters else {}
        if self._body_adapter is None:
            response = await self.endpoint(request, **parameters)
        else:
            body = _validate(self._body_adapter, await read_body(request, context))
            if caller is not None:
                authorizer.count_entries(caller, _entries(body))
            response = await self.endpoint(request, body, **parameters)
        context.check_deadline()
        await response(scope, receive, send)

    def _check_query(self, request: Request) -> None:
        """Raises InvalidRequestError for parameters that do not exist, or are given twice."""
        names = [name for name, _ in request.query_params.multi_items()]
        allowed = ", ".join(sorted(self._query_names))
        remedy = f"allowed: {allowed}" if allowed else "leave it out"
        problems = [
            Problem(
                name[:_MAX_NAME_CHARACTERS] or "query",
                "given more than once; give it once"
                if name in self._query_names
                else f"unknown query parameter; {remedy}",
            )
            for name in dict.fromkeys(names)
            if name not in self._query_names or names.count(name) > 1
        ]
        if problems:
            raise InvalidRequestError(problems[:_MAX_PROBLEMS])

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


def _entries(body: Any) -> int:
    """How many requests the body stands for: the length of a list or a batch, else 1."""
    return len(body) if isinstance(body, list) else getattr(body, "entries", 1)

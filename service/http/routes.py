"""The table of routes: method, path, endpoint, response, errors and permission."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Security
from fastapi.params import Depends
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import Response

from service.auth.authorization import Permission
from service.http.endpoints import availability, canary, histories, items, operations, recommend
from service.http.operation_names import operation_names
from service.http.schemas.availability import (
    AvailabilitiesNow,
    AvailabilityNow,
    WithdrawnPage,
)
from service.http.schemas.canary import CanaryReport
from service.http.schemas.common import ErrorBody
from service.http.schemas.histories import Accepted, Forgotten, History
from service.http.schemas.items import Item, SimilarItems
from service.http.schemas.operations import Alive, Ready, ReleaseState, Reloaded, TenantsReady
from service.http.schemas.recommend import Recommendations, RecommendedBatch
from service.settings import Settings


class IdConvertor(PathConvertor):
    """Matches any id, including slashes and line ends."""

    regex = "(?s:.*)"


register_url_convertor("id", IdConvertor())

_ITEM = "/items/{item_id:id}"
_HISTORY = "/users/{user_id:id}/history"
_BODY_ERRORS = (408, 413, 415)
_INVALID = 422  # at least for an unknown query parameter
_AUTH_ERRORS: dict[Permission, tuple[int, ...]] = {
    "open": (),
    "any": (401, 429),
    "read": (401, 403, 429),
    "events": (401, 403, 429),
    "catalog": (401, 403, 429),
    "erase": (401, 403, 429),
    "admin": (401, 403, 429),
}
_METRICS_DOCS = {
    "schema": {"type": "string"},
    "example": 're4_requests_total{route="/recommend",status="200"} 1.0\n',
}
_BEARER = HTTPBearer(auto_error=False, description="an API key")


def add_routes(app: FastAPI, settings: Settings) -> None:
    body_errors = (*_BODY_ERRORS, 503)
    recommended = f"POST {recommend.ROUTE}", recommend.recommend, Recommendations
    _add(app, *recommended, recommend.PERMISSION, *body_errors)
    _add(app, "POST /recommend/batch", recommend.batch, RecommendedBatch, "read", *body_errors)
    _add(app, f"GET {_ITEM}/similar", items.similar, SimilarItems, "read", 404, 503)
    _add(app, "POST /events", histories.events, Accepted, "events", *body_errors)
    _add(app, f"GET {_HISTORY}", histories.history, History, "read", 503)
    _add(app, f"DELETE {_HISTORY}", histories.forget, Forgotten, "erase", 503)
    change_errors = (*body_errors, 409)
    _add(app, f"GET {_ITEM}", items.item, Item, "read", 404, 503)
    _add(app, f"PUT {_ITEM}", availability.put, AvailabilityNow, "catalog", *change_errors)
    _add(app, "PUT /items", availability.put_all, AvailabilitiesNow, "catalog", *change_errors)
    _add(app, "POST /items", availability.post_all, AvailabilitiesNow, "catalog", *change_errors)
    _add(app, "GET /items", availability.withdrawn, WithdrawnPage, "read")
    _add(app, "GET /livez", operations.livez, Alive, "open")
    _add(app, "GET /readyz", operations.readyz, Ready, "open", 503)
    _add(app, "GET /release", operations.release, ReleaseState, "read")
    _add(app, "GET /canary", canary.canary, CanaryReport, "read", 503)
    if settings.has_admin:
        _add(app, "POST /admin/reload", operations.reload, Reloaded, "admin", 409, 503)
    _add_metrics(app, "open" if settings.allow_anonymous_metrics else "any")


def add_process_routes(app: FastAPI, metrics: Permission) -> None:
    """Of a process that serves several tenants. metrics: what those of all of them require."""
    _add(app, "GET /livez", operations.livez, Alive, "open")
    _add(app, "GET /readyz", operations.tenants_readyz, TenantsReady, "open", 503)
    _add_metrics(app, metrics)


def _add(
    app: FastAPI,
    method_and_path: str,
    endpoint: Callable[..., Awaitable[Response]],
    response: type[BaseModel],
    permission: Permission,
    *errors: int,
) -> None:
    """permission: what the route requires. errors: the statuses beside those of authorization."""
    method, path = method_and_path.split()
    app.add_api_route(
        path,
        endpoint,
        methods=[method],
        **operation_names(method, path, endpoint),
        response_model=response,
        responses=_error_responses(*errors, _INVALID, *_AUTH_ERRORS[permission], 500),
        dependencies=security(permission),
    )


def _add_metrics(app: FastAPI, permission: Permission) -> None:
    content = {operations.METRICS_TYPE: _METRICS_DOCS}
    app.add_api_route(
        "/metrics",
        operations.metrics,
        **operation_names("GET", "/metrics", operations.metrics),
        response_class=Response,
        responses={
            200: {"content": content},
            **_error_responses(_INVALID, *_AUTH_ERRORS[permission]),
        },
        dependencies=security(permission),
    )


def _error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorBody} for status in statuses}


def security(permission: Permission) -> list[Depends]:
    """The dependencies from which DirectRoute and the documentation read the permission."""
    return [] if permission == "open" else [Security(_BEARER, scopes=[permission])]

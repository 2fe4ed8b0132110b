"""The HTTP application: its parts, the table of its routes, and what surrounds every request."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Security
from fastapi.middleware.cors import CORSMiddleware
from fastapi.params import Depends
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from index.ann.gpu import make_cloner
from index.release.errors import ReleaseError
from service.auth.authorization import Authorizer, Permission
from service.errors import HistoryUnavailableError, ServiceError
from service.http.docs_page import docs_page
from service.http.endpoints import availability, histories, items, operations, recommend
from service.http.middleware import RequestMiddleware
from service.http.routing import DirectRoute
from service.http.schemas.availability import AvailabilityNow
from service.http.schemas.common import ErrorBody
from service.http.schemas.histories import Accepted, Forgotten, History
from service.http.schemas.items import SimilarItems
from service.http.schemas.operations import Alive, Ready, ReleaseState, Reloaded
from service.http.schemas.recommend import Recommendations, RecommendedBatch
from service.http.state import Service, error_response
from service.serving.batching import Engine
from service.serving.release_loader import LiveRelease
from service.settings import Settings, SetupError
from service.store.availability import WithdrawnItems
from service.store.cold_start import ColdStartItems
from service.store.histories import HistoryStore
from service.store.redis_client import ResilientRedis
from service.store.redis_url import address_of
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:  # it is there with its extra alone
    from service.telemetry.tracing import Tracing

_TITLE = "Candidates for users with several interests"
_LOOK_S = 1.0


class IdConvertor(PathConvertor):
    """All that may stand in an id: slashes, and ends of lines too."""

    regex = "(?s:.*)"


register_url_convertor("id", IdConvertor())


def create_app(settings: Settings) -> FastAPI:
    """The app; it loads a release and reaches for Redis once it is started.

    Raises EmbeddedRedisError for a history folder that cannot hold a Redis, SetupError for other
    things that the settings name.
    """
    app = FastAPI(
        title=_TITLE,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=dict.fromkeys((HTTPException, ServiceError, ReleaseError), _on_error),
    )
    service = _service(settings)
    app.state.service = service
    app.router.route_class = DirectRoute
    _add_routes(app, settings)
    app.add_route("/docs", docs_page(_TITLE), include_in_schema=False)
    app.add_middleware(
        RequestMiddleware,
        metrics=service.metrics,
        access_log=settings.access_log,
        tracing=service.tracing,
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins.split(","),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after", "server-timing"],
        )
    return app


def _service(settings: Settings) -> Service:
    metrics = Metrics(shared=settings.workers > 1)
    redis = ResilientRedis(address_of(settings), settings, metrics)
    history, withdrawn = HistoryStore(redis, settings, metrics), WithdrawnItems(redis)
    _check_device(settings.device)
    live = LiveRelease(settings.releases, metrics, device=settings.device)
    newcomers = ColdStartItems(redis, history, live, withdrawn, settings)
    engine = Engine(
        live,
        metrics,
        settings.queue_limit,
        settings.batch_limit,
        settings.deadline_ms / 1000,
        withdrawn.rows,
        newcomers.delta,
    )
    metrics.watch(metrics.queue_depth, lambda: engine.depth)
    metrics.watch(metrics.queue_age, lambda: engine.age_s)
    metrics.watch(metrics.breaker_open, lambda: redis.circuit_open)
    metrics.watch(metrics.withdrawn, lambda: len(withdrawn))
    metrics.watch(metrics.new_items, lambda: len(newcomers))
    door, tracing = Authorizer(settings), _tracing(settings)
    return Service(
        settings, metrics, live, engine, redis, history, withdrawn, newcomers, door, tracing
    )


def _check_device(device: str) -> None:
    """Raises SetupError if it is not there: a release that is refused for it would say so late."""
    if device == "cpu":
        return
    try:
        make_cloner(device)
    except ValueError as error:
        raise SetupError(f"--{error}") from error


def _tracing(settings: Settings) -> "Tracing | None":
    if settings.tracing is None:
        return None
    try:
        from service.telemetry.tracing import Tracing
    except ImportError as error:
        raise SetupError(
            f"--tracing: {error.name} is not installed; run: pip install 're4[tracing]'"
        ) from error
    return Tracing(settings.tracing)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    await service.redis.start()
    with suppress(HistoryUnavailableError):  # noted by the link
        await service.withdrawn.poll()
    watching = [
        asyncio.create_task(service.live.watch(service.settings.reload_interval_s)),
        asyncio.create_task(service.withdrawn.watch()),
        asyncio.create_task(service.newcomers.watch()),
    ]
    if service.metrics.are_shared:
        watching.append(asyncio.create_task(_look(service.metrics)))
    try:
        yield
    finally:
        for task in watching:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await service.redis.close()
        if service.tracing is not None:
            await asyncio.to_thread(service.tracing.close)


async def _look(metrics: Metrics) -> None:
    """For the other workers, who tell of this one too."""
    while True:
        metrics.poll()
        await asyncio.sleep(_LOOK_S)


def _add_routes(app: FastAPI, settings: Settings) -> None:
    body = (408, 413, 422)
    _add(app, "POST", "/recommend", recommend.recommend, Recommendations, *body, 503, access="read")
    _add(
        app,
        "POST",
        "/recommend/batch",
        recommend.batch,
        RecommendedBatch,
        *(*body, 503),
        access="read",
    )
    similar, missing = "/items/{item_id:id}/similar", (404, 422)
    _add(app, "GET", similar, items.similar, SimilarItems, *missing, 503, access="read")
    _add(app, "POST", "/events", histories.events, Accepted, *body, 503, access="events")
    stored = "/users/{user_id:id}/history"
    _add(app, "GET", stored, histories.history, History, 422, 503, access="read")
    _add(app, "DELETE", stored, histories.forget, Forgotten, 422, 503, access="events")
    item = "/items/{item_id:id}"
    _add(app, "PUT", item, availability.put, AvailabilityNow, *body, 503, access="events")
    _add(app, "GET", "/livez", operations.livez, Alive, access="open")
    _add(app, "GET", "/readyz", operations.readyz, Ready, 503, access="open")
    _add(app, "GET", "/release", operations.release, ReleaseState, access="read")
    if settings.has_administration:
        _add(app, "POST", "/admin/reload", operations.reload, Reloaded, 409, 503)
    access: Permission = "open" if settings.open_metrics else "any"
    app.add_api_route(
        "/metrics",
        operations.metrics,
        response_class=Response,
        responses={
            200: {"content": {operations.METRICS_TYPE: _METRICS}},
            **_refusals(*_AT_THE_DOOR[access]),
        },
        dependencies=_asking(access),
    )


_AT_THE_DOOR: dict[Permission, tuple[int, ...]] = {
    "open": (),
    "any": (401, 429),
    "read": (401, 403, 429),
    "events": (401, 403, 429),
    "admin": (401, 403, 429),
}
_METRICS = {
    "schema": {"type": "string"},
    "example": 're4_requests_total{route="/recommend",status="200"} 1.0\n',
}
_BEARER = HTTPBearer(auto_error=False, description="an API key")


def _add(
    app: FastAPI,
    method: str,
    path: str,
    endpoint: Callable[..., Awaitable[Response]],
    answer: type[BaseModel],
    *errors: int,
    access: Permission = "admin",
) -> None:
    """access: what a caller needs; who forgets to say it has a route for administrators alone."""
    app.add_api_route(
        path,
        endpoint,
        methods=[method],
        response_model=answer,
        responses=_refusals(*errors, *_AT_THE_DOOR[access], 500),
        dependencies=_asking(access),
    )


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorBody} for status in statuses}


def _asking(access: Permission) -> list[Depends]:
    """What DirectRoute asks of the caller, and the documentation tells."""
    return [] if access == "open" else [Security(_BEARER, scopes=[access])]


async def _on_error(_: Request, error: Exception) -> Response:
    return error_response(error)

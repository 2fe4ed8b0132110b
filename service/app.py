"""The HTTP application: its parts, the table of its routes, and what surrounds every request."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from prometheus_client import Counter
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from index.release import ReleaseError
from service.direct import DirectRoute
from service.endpoints import histories, operations, recommend
from service.engine import Engine
from service.errors import ServiceError, tell
from service.history import HistoryStore, server_of
from service.live import LiveRelease
from service.metrics import Metrics
from service.parts import Service, json_response
from service.schemas.common import ErrorBody
from service.schemas.histories import Accepted
from service.schemas.operations import Alive, Ready, ReleaseState, Reloaded
from service.schemas.recommend import Recommendations
from service.settings import Settings

log = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """The app; it loads a release and reaches for Redis once it is started.

    Raises EmbeddedRedisError for a history folder that cannot hold a Redis.
    """
    app = FastAPI(
        title="Candidates for users with several interests",
        lifespan=_lifespan,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=dict.fromkeys((HTTPException, ServiceError, ReleaseError), _on_error),
    )
    service = _service(settings)
    app.state.service = service
    app.router.route_class = DirectRoute
    _add_routes(app, admin=settings.admin_key is not None)
    app.add_middleware(Surround, requests=service.metrics.requests)
    return app


def _service(settings: Settings) -> Service:
    metrics = Metrics()
    live = LiveRelease(settings.releases, metrics)
    engine = Engine(
        live, metrics, settings.queue_limit, settings.batch_limit, settings.deadline_ms / 1000
    )
    history = HistoryStore(server_of(settings), settings, metrics)
    return Service(settings, metrics, live, engine, history)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    await service.history.start()
    watching = asyncio.create_task(service.live.watch(service.settings.reload_interval_s))
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await service.history.close()


def _add_routes(app: FastAPI, admin: bool) -> None:
    body = (408, 413, 422)
    _add(app, "POST", "/recommend", recommend.recommend, Recommendations, *body, 503)
    _add(app, "POST", "/events", histories.events, Accepted, *body, 503)
    _add(app, "GET", "/livez", operations.livez, Alive)
    _add(app, "GET", "/readyz", operations.readyz, Ready, 503)
    _add(app, "GET", "/release", operations.release, ReleaseState)
    if admin:
        _add(app, "POST", "/admin/reload", operations.reload, Reloaded, 401, 409, 503)
    app.add_api_route(
        "/metrics",
        operations.metrics,
        response_class=Response,
        responses={200: {"content": {operations.METRICS_TYPE: {"schema": {"type": "string"}}}}},
    )


def _add(
    app: FastAPI,
    method: str,
    path: str,
    endpoint: Callable[..., Awaitable[Response]],
    answer: type[BaseModel],
    *errors: int,
) -> None:
    app.add_api_route(
        path,
        endpoint,
        methods=[method],
        response_model=answer,
        responses={status: {"model": ErrorBody} for status in (*errors, 500)},
    )


async def _on_error(_: Request, error: Exception) -> Response:
    return _response(error)


def _response(error: Exception) -> Response:
    told = tell(error)
    return json_response(told.body, told.status, told.headers)


class Surround:
    """Around every request: counts its status, and answers an error that nobody expected."""

    def __init__(self, app: ASGIApp, requests: Counter) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def watched_send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            log.exception("request failed", extra={"route": _route(scope)})
            if status:
                raise
            await _response(error)(scope, receive, watched_send)
        finally:
            if status:
                self._requests.labels(_route(scope), status).inc()


def _route(scope: Scope) -> str:
    """The path as it was declared; not as it was asked for, of which there is no end."""
    return getattr(scope.get("route"), "path", "other")

"""The HTTP application: its components and background tasks."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.auth.api_keys import KeyScope
from service.auth.authorization import Authorizer
from service.errors import EXPECTED_ERRORS, HistoryUnavailableError
from service.http.cross_origin import CrossOrigin, CrossOriginMiddleware
from service.http.docs_page import add_docs_page
from service.http.host_check import AllowedHosts, HostCheck
from service.http.middleware import RequestMiddleware
from service.http.operation_names import TAGS
from service.http.path_prefix import PathPrefix
from service.http.responses import error_response
from service.http.routes import add_routes
from service.http.routing import DirectRoute
from service.http.shadow import Shadow
from service.http.state import ServiceState
from service.page.routes import add_page, serves_page
from service.serving.batching import Engine
from service.serving.canary import CanaryLoader
from service.serving.canary_quality import CanaryQuality
from service.serving.live_quality import QualityObserver
from service.serving.loader_creation import create_loader
from service.serving.release_loader import ReleaseLoader
from service.serving.supervision import Work, run_for_ever
from service.settings import Settings, SetupError
from service.store.availability import ItemAvailability
from service.store.cold_start import ColdStartItems
from service.store.details_in_use import DetailsInUse
from service.store.histories import HistoryStore
from service.store.impressions import Impressions
from service.store.item_details import ItemDetails
from service.store.live_quality import LiveQuality
from service.store.redis_client import ResilientRedis, deployment_of
from service.store.redis_url import Deployment
from service.telemetry.canary_metrics import CanaryMetrics
from service.telemetry.metric_group import Exposition, MetricGroup
from service.telemetry.metrics import Metrics, TaskName
from service.telemetry.quality_metrics import QualityMetrics

if TYPE_CHECKING:  # needs the extra `tracing`
    from service.telemetry.tracing import Tracing

_TITLE = "Candidates for users with several interests"
_METRICS_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Part:
    """The place of an application in its process.

    tenant, keys: None for the only one; else its name, and which keys of a file count.
    """

    exposition: Exposition
    deployment: Deployment
    tenant: str | None = None
    keys: KeyScope | None = None

    @classmethod
    def whole(cls, settings: Settings) -> "Part":
        """That of the only application. Raises as `create_app` does."""
        return cls(Exposition(shared=settings.workers > 1), deployment_of(settings))


def create_app(settings: Settings, part: Part | None = None) -> FastAPI:
    """The application. It loads a release and connects to Redis when it is started.

    part: for one of several tenants.
    Raises EmbeddedRedisError if the folder of the embedded Redis cannot be used, SetupError for
    other unusable settings.
    """
    app = _create_routes(settings)
    state = _create_state(settings, part or Part.whole(settings))
    _add_callbacks(state)
    app.state.service = state
    add_docs_page(app, settings.root_path)
    if serves_page(settings):
        add_page(app, state)
    if settings.root_path:
        app.add_middleware(PathPrefix, prefix=settings.root_path)
    if state.hosts is not None:
        app.add_middleware(HostCheck, hosts=state.hosts)
    app.add_middleware(
        RequestMiddleware,
        metrics=state.metrics,
        access_log=settings.access_log,
        tracing=state.tracing,
    )
    if state.cross_origin is not None:
        app.add_middleware(CrossOriginMiddleware, origins=state.cross_origin.origins)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.trusted_proxies)
    return app


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document of all endpoints, those for administrators included."""
    settings = Settings.model_construct(keys_file=Path("keys"))
    return _create_routes(settings).openapi()


def _create_routes(settings: Settings) -> FastAPI:
    app = FastAPI(
        title=_TITLE,
        version=version("re4"),
        openapi_tags=TAGS,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=dict.fromkeys((HTTPException, *EXPECTED_ERRORS), _on_error),
    )
    app.router.route_class = DirectRoute
    add_routes(app, settings)
    return app


def _create_state(settings: Settings, part: Part) -> ServiceState:
    metrics = Metrics(part.exposition, part.tenant)
    redis = ResilientRedis(part.deployment, settings, metrics)
    histories = HistoryStore(redis, settings, metrics)
    live = create_loader(settings, metrics)
    canary = CanaryLoader(settings.releases, live, CanaryMetrics(metrics))
    availability = ItemAvailability(redis, live, settings, metrics)
    item_details = DetailsInUse(ItemDetails(redis), live, canary)
    cold_start_items, canary_items = (
        ColdStartItems(redis, histories, in_use, availability, item_details, settings)
        for in_use in (live, canary)
    )
    quality = LiveQuality(redis, settings.canary_window_hours)
    quality_metrics = QualityMetrics(metrics)
    engine = _create_engine(
        settings, metrics, live, canary, availability, item_details, cold_start_items, canary_items
    )
    return ServiceState(
        settings=settings,
        metrics=metrics,
        live=live,
        canary=canary,
        quality=QualityObserver(quality, live, canary, quality_metrics, settings),
        canary_quality=CanaryQuality(quality, canary, quality_metrics, settings),
        shadow=Shadow(engine, canary),
        engine=engine,
        redis=redis,
        histories=histories,
        impressions=Impressions(redis, settings),
        availability=availability,
        item_details=item_details,
        cold_start_items=cold_start_items,
        canary_items=canary_items,
        authorizer=Authorizer(settings, part.keys),
        hosts=None if settings.checked_hosts is None else AllowedHosts(settings.checked_hosts),
        cross_origin=CrossOrigin(settings.cors_origins) if settings.cors_origins else None,
        tracing=_create_tracing(settings, part.tenant),
        tenant=part.tenant,
        context=copy_context() if part.tenant else None,
    )


def _create_engine(
    settings: Settings,
    metrics: Metrics,
    live: ReleaseLoader,
    canary: CanaryLoader,
    availability: ItemAvailability,
    item_details: DetailsInUse,
    cold_start_items: ColdStartItems,
    canary_items: ColdStartItems,
) -> Engine:
    return Engine(
        live,
        metrics,
        settings.max_queue_size,
        settings.max_batch_size,
        settings.deadline_ms / 1000,
        availability.withdrawn_rows,
        lambda release: cold_start_items.delta(release) or canary_items.delta(release),
        lambda: canary.release,
        item_details.release,
    )


def _add_callbacks(state: ServiceState) -> None:
    """For the metrics that are read from the components."""
    metrics, availability = state.metrics, state.availability
    metrics.add_gauge_callback(metrics.queue_depth, lambda: state.engine.depth)
    metrics.add_gauge_callback(metrics.queue_age, lambda: state.engine.age_s)
    metrics.add_gauge_callback(metrics.redis_circuit_open, lambda: state.redis.circuit_open)
    metrics.add_gauge_callback(metrics.withdrawn_items, lambda: len(availability.withdrawn))
    metrics.add_gauge_callback(metrics.announced_items, lambda: len(availability.announced))
    metrics.add_gauge_callback(metrics.changed_items, lambda: len(state.item_details))
    metrics.add_gauge_callback(metrics.cold_start_items, lambda: len(state.cold_start_items))


def _create_tracing(settings: Settings, tenant: str | None) -> "Tracing | None":
    if settings.tracing is None:
        return None
    try:
        from service.telemetry.tracing import Tracing
    except ImportError as error:
        raise SetupError(
            f"--tracing: {error.name} is not installed; run: pip install 're4[tracing]'"
        ) from error
    return Tracing(settings.tracing, tenant)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: ServiceState = app.state.service
    await state.redis.start()
    with suppress(HistoryUnavailableError):  # counted and logged by ResilientRedis
        await state.availability.poll()
        await state.item_details.poll()
    tasks = [
        asyncio.create_task(run_for_ever(name, work, state.metrics))
        for name, work in _background_work(state)
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await state.redis.close()
        if state.tracing is not None:
            await asyncio.to_thread(state.tracing.close)


def _background_work(state: ServiceState) -> Iterator[tuple[TaskName, Work]]:
    """What runs for ever, by its name in the metrics."""
    yield "releases", partial(state.live.watch, state.settings.reload_interval_s)
    yield "releases", partial(_watch_canary, state)
    yield "releases", state.canary_quality.watch
    if state.settings.quality_sample_rate:
        yield "releases", state.quality.watch
    yield "redis", state.redis.watch
    yield "withdrawals", state.availability.watch
    yield "withdrawals", state.item_details.watch
    if state.settings.max_cold_start_items:
        yield "new items", state.cold_start_items.watch
    if state.metrics.are_shared:
        yield "metrics", partial(poll_metrics, state.metrics)


async def _watch_canary(state: ServiceState) -> None:
    """Follow the canary, and the new items beside its release."""
    while True:
        await state.canary.refresh()
        if state.canary.release is not None and state.settings.max_cold_start_items:
            with suppress(HistoryUnavailableError):  # counted and logged by ResilientRedis
                await state.canary_items.poll()
        await asyncio.sleep(state.settings.reload_interval_s)


async def poll_metrics(metrics: MetricGroup) -> None:
    """Keep the gauges current for the other workers, which expose them too."""
    try:
        while True:
            metrics.poll()
            await asyncio.sleep(_METRICS_INTERVAL_S)
    finally:
        metrics.poll()


async def _on_error(_: Request, error: Exception) -> Response:
    return error_response(error)

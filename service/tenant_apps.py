"""The application of a process that serves several shops: one application for each, and a router.

Each tenant has all components for itself: releases, engine, Redis prefix, keys, limits. They share
the event loop, the connections and, if it is the embedded one, the Redis.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.app import Part, create_app, poll_metrics
from service.auth.api_keys import ALL_TENANTS, KeyScope
from service.auth.authorization import Authorizer, Permission
from service.errors import EXPECTED_ERRORS, UnknownTenantError
from service.http.host_check import AllowedHosts, HostCheck
from service.http.middleware import RequestMiddleware
from service.http.responses import error_response
from service.http.routes import add_process_routes
from service.http.routing import DirectRoute
from service.http.tenant_router import TenantRouter
from service.http.tenants import TenantsState
from service.settings import Settings
from service.store.redis_client import deployment_of
from service.telemetry.logs import logged_as
from service.telemetry.metric_group import Exposition
from service.telemetry.metrics import ProcessMetrics, RequestCounts
from service.tenants import Tenants, settings_of

_NOBODY = ""  # the label of what is no tenant's


def create_tenants_app(settings: Settings, tenants: Tenants) -> FastAPI:
    """The application. Each tenant's starts with it, and raises what it raises alone."""
    exposition = Exposition(shared=settings.workers > 1)
    ProcessMetrics(exposition)
    apps = _create_apps(settings, tenants, exposition)
    state = _create_state(settings, apps, RequestCounts(exposition, _NOBODY))
    app = FastAPI(
        title="Several shops",
        version=version("re4"),
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers=dict.fromkeys((HTTPException, *EXPECTED_ERRORS), _on_error),
    )
    app.router.route_class = DirectRoute
    app.state.service, app.state.tenants = state, apps
    add_process_routes(app, _metrics_permission(state))
    if state.hosts is not None:
        app.add_middleware(HostCheck, hosts=state.hosts)
    app.add_middleware(
        RequestMiddleware, metrics=state.metrics, access_log=settings.access_log, tracing=None
    )
    app.add_middleware(TenantRouter, tenants=apps, root_path=settings.root_path)
    return app


def _create_apps(
    settings: Settings, tenants: Tenants, exposition: Exposition
) -> dict[str, FastAPI]:
    apps = {}
    common = deployment_of(settings) if settings.redis_url is None else None
    for name, own in tenants.items():
        chosen = settings_of(settings, name, own)
        own_redis = deployment_of(chosen) if chosen.redis_url is not None else None
        part = Part(
            tenant=name,
            keys=KeyScope(name, is_shared="keys_file" not in own),
            exposition=exposition,
            deployment=own_redis or common or deployment_of(settings),
        )
        with logged_as(name):
            apps[name] = create_app(chosen, part)
    return apps


def _create_state(
    settings: Settings, apps: dict[str, FastAPI], metrics: RequestCounts
) -> TenantsState:
    return TenantsState(
        settings=settings,
        metrics=metrics,
        authorizer=Authorizer(settings, KeyScope(ALL_TENANTS)),
        tenants={name: app.state.service for name, app in apps.items()},
        hosts=None if settings.checked_hosts is None else AllowedHosts(settings.checked_hosts),
    )


def _metrics_permission(state: TenantsState) -> Permission:
    """Of the metrics of all tenants: no tenant's own key opens them."""
    if state.settings.allow_anonymous_metrics:
        return "open"
    has_keys = any(tenant.settings.keys_file for tenant in state.tenants.values())
    return "admin" if has_keys and state.settings.keys_file is None else "any"


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    metrics: RequestCounts = app.state.service.metrics
    async with AsyncExitStack() as stack:
        for name, tenant in app.state.tenants.items():
            with logged_as(name):
                await stack.enter_async_context(tenant.router.lifespan_context(tenant))
        task = asyncio.create_task(poll_metrics(metrics)) if metrics.are_shared else None
        yield
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _on_error(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 404:
        error = UnknownTenantError(
            "path: no tenant of that name; the path of a request is /t/NAME/ and an endpoint, such "
            "as /t/NAME/recommend, with the name that the operator of this service gave you"
        )
    return error_response(error)

"""The way of a request to its tenant: /t/NAME/... goes to the application of that name."""

import asyncio
from collections.abc import Mapping

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.state import ServiceState
from service.http.tenants import PREFIX
from service.telemetry.logs import logged_as


class TenantRouter:
    """The outermost middleware. What is no tenant's goes on to the application inside."""

    def __init__(self, app: ASGIApp, tenants: Mapping[str, FastAPI], root_path: str) -> None:
        """root_path: which a proxy in front takes off, or leaves."""
        self._app = app
        self._tenants = tenants
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name, path = self._split(scope) if scope["type"] == "http" else ("", "")
        tenant = self._tenants.get(name)
        if tenant is None:
            await self._app(scope, receive, send)
            return
        state: ServiceState = tenant.state.service
        task = asyncio.current_task()
        assert task is not None, "not in a task; this is a bug"
        state.tasks.add(task)
        try:
            with logged_as(name):
                await tenant({**scope, "path": path}, receive, send)
        finally:
            state.tasks.discard(task)

    def _split(self, scope: Scope) -> tuple[str, str]:
        """The name in the path, and the path that the tenant's application knows."""
        path: str = scope["path"]
        if self._root_path and path.startswith(f"{self._root_path}/"):
            path = path.removeprefix(self._root_path)
        if not path.startswith(PREFIX):
            return "", path
        name, _, rest = path.removeprefix(PREFIX).partition("/")
        return name, f"/{rest}"

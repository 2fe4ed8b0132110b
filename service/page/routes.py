"""GET / with the files of the page, and the table of its endpoints."""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from service.auth.authorization import Permission
from service.http.routes import security
from service.http.state import ServiceState
from service.page import endpoints
from service.page.shown import ShownReleases
from service.settings import Settings

_ASSETS = Path(str(files("service.page") / "assets"))
_FILES = StaticFiles(directory=_ASSETS)
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def serves_page(settings: Settings) -> bool:
    """Whether the page is on; unless told, it is where no keys are needed."""
    return settings.keys_file is None if settings.page == "auto" else settings.page == "on"


def add_page(app: FastAPI, state: ServiceState) -> None:
    """Serve the page to everyone, and its endpoints to those who may read."""
    app.state.page = ShownReleases(state)
    _add(app, "GET /", _page(state.settings.root_path), "open")
    _add(app, "GET /page/assets/{file}", _asset, "open")
    _add(app, "GET /page/setup", endpoints.setup)
    _add(app, "GET /page/search", endpoints.search)
    _add(app, "GET /page/map", endpoints.item_map)
    _add(app, "POST /page/describe", endpoints.describe)
    _add(app, "POST /page/compare", endpoints.compare)
    _add(app, "GET /page/releases", endpoints.releases)
    _add(app, "GET /page/nights", endpoints.nights)
    if state.settings.has_admin:
        _add(app, "POST /page/rollback", endpoints.roll_back, "admin")


def _page(root_path: str) -> Callable[[Request], Awaitable[Response]]:
    html = (_ASSETS / "index.html").read_text(encoding="utf-8")
    html = html.replace('="assets/', f'="{root_path}/page/assets/')
    html = html.replace('href="docs"', f'href="{root_path}/docs"')

    async def page(request: Request) -> Response:
        return HTMLResponse(html, headers=_HEADERS)

    return page


async def _asset(request: Request, file: str) -> Response:
    return await _FILES.get_response(file, request.scope)


def _add(
    app: FastAPI,
    method_and_path: str,
    endpoint: Callable[..., Awaitable[Response]],
    permission: Permission = "read",
) -> None:
    method, path = method_and_path.split()
    app.add_api_route(
        path,
        endpoint,
        methods=[method],
        response_model=None,
        dependencies=security(permission),
        include_in_schema=False,
    )

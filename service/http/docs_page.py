"""The documentation page: Swagger UI, served without any other host."""

import base64
import re
from collections.abc import Awaitable, Callable
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

_PATH = "/docs"
_SCRIPT_URL = f"{_PATH}/swagger-ui-bundle.js"
_STYLE_URL = f"{_PATH}/swagger-ui.css"
_MEDIA_TYPES = {_SCRIPT_URL: "text/javascript", _STYLE_URL: "text/css"}
_CACHE_CONTROL = "public, max-age=604800"  # one week
_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)

_Endpoint = Callable[[Request], Awaitable[Response]]


def add_docs_page(app: FastAPI, root_path: str) -> None:
    """Serve /docs, where every endpoint can be tried, and the two files it loads.

    root_path: the path that a proxy in front takes off.
    """
    app.add_route(_PATH, _page(app.title, root_path), include_in_schema=False)
    for url, media_type in _MEDIA_TYPES.items():
        app.add_route(url, _asset(url, media_type), include_in_schema=False)


def _page(title: str, root_path: str) -> _Endpoint:
    response = get_swagger_ui_html(
        openapi_url=f"{root_path}/openapi.json",
        title=title,
        swagger_js_url=root_path + _SCRIPT_URL,
        swagger_css_url=root_path + _STYLE_URL,
        swagger_favicon_url="data:,",
        swagger_ui_parameters={"validatorUrl": None},  # else Swagger UI asks a foreign host
    )
    html = bytes(response.body).decode()

    async def docs(_: Request) -> Response:
        return page(html)

    return docs


def _asset(url: str, media_type: str) -> _Endpoint:
    folder = Path(str(files("fastapi_swagger.resources")))
    file = folder / url.rpartition("/")[2]

    async def asset(_: Request) -> Response:
        return FileResponse(file, headers={"cache-control": _CACHE_CONTROL}, media_type=media_type)

    return asset


def page(html: str) -> Response:
    """The HTML page, which may run its own inline scripts and load files of this host only."""
    policy = (
        f"default-src 'none'; script-src 'self' {_hashes(html)}; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
    }
    return HTMLResponse(html, headers=headers)


def _hashes(html: str) -> str:
    """The CSP sources for the inline scripts of the page."""
    digests = (sha256(script.encode()).digest() for script in _INLINE_SCRIPT.findall(html))
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

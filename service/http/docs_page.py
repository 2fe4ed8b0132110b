"""A web page, and what it is allowed to load: nothing that it does not name."""

import base64
import re
from collections.abc import Awaitable, Callable
from hashlib import sha256

from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_SCRIPTS = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_CDN = "https://cdn.jsdelivr.net"


def docs_page(title: str) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a page on which every other can be tried."""
    html = bytes(
        get_swagger_ui_html(
            openapi_url="/openapi.json", title=title, swagger_favicon_url="data:,"
        ).body
    ).decode()

    async def docs(_: Request) -> Response:
        return page(html, _CDN)

    return docs


def page(html: str, source: str = "") -> Response:
    """The HTML, of which only the scripts that stand in it are run, and those from the source."""
    policy = (
        f"default-src 'none'; script-src {_hashes(html)} {source}; "
        f"style-src 'self' 'unsafe-inline' {source}; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
    }
    return HTMLResponse(html, headers=headers)


def _hashes(html: str) -> str:
    digests = (sha256(script.encode()).digest() for script in _SCRIPTS.findall(html))
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

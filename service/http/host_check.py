"""Which host names requests may name: a defence of a server without keys against DNS rebinding.

A page on evil.example can have its own name point at this machine. Its requests are then of its own
origin, so no browser stops them; but their Host header names evil.example.
"""

from collections.abc import Iterable
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import MisdirectedError
from service.http.responses import error_response

_LOCAL = "localhost"  # which browsers never look up
_MAX_SHOWN = 40


class HostCheck:
    """The middleware that refuses requests whose Host header is a name that is not allowed."""

    def __init__(self, app: ASGIApp, hosts: "AllowedHosts") -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._hosts.allow(scope["headers"]):
            await self._app(scope, receive, send)
            return
        host = dict(scope["headers"])[b"host"].decode("latin-1")
        shown = repr(host[:_MAX_SHOWN]) + "..." * (len(host) > _MAX_SHOWN)
        error = MisdirectedError(
            f"host: given {shown}; use localhost, an address, or a name that the server's setting "
            "--allowed-hosts lists"
        )
        await error_response(error)(scope, receive, send)


class AllowedHosts:
    """Addresses are always allowed: a page has its address as origin, whoever serves it."""

    def __init__(self, allowed: str) -> None:
        """allowed: names separated by commas; `*.shop.example` allows all below it, `*` any."""
        names = allowed.split(",") if allowed else []
        self._names = {_LOCAL, *names}
        self._suffixes = tuple(name[1:] for name in (*names, f"*.{_LOCAL}") if name[:2] == "*.")
        self._known: set[bytes] = set()  # headers that were allowed

    def allow(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether no Host header names a host that is not allowed."""
        for name, value in headers:
            if name == b"host" and value not in self._known:
                if not self._allows(value):
                    return False
                if len(self._known) < 100:
                    self._known.add(value)
        return True

    def _allows(self, header: bytes) -> bool:
        host = header.decode("latin-1").strip().lower()
        if host.startswith("["):
            host = host[1:].partition("]")[0]
        elif host.count(":") == 1:
            host = host.partition(":")[0]
        host = host.removesuffix(".")
        return not host or host in self._names or host.endswith(self._suffixes) or _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True

"""The path under which a proxy serves this server, and which it takes off."""

from starlette.types import ASGIApp, Receive, Scope, Send


class PathPrefix:
    """The middleware that tells the framework of the prefix, for the addresses that it makes.

    Requests from which the proxy did not take it off are answered all the same.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["root_path"] = self._prefix
        await self._app(scope, receive, send)

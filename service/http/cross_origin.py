"""Requests from pages of other origins: CORS, on every response."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send


class CrossOriginMiddleware(CORSMiddleware):
    """CORS for the origins of the settings."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after", "server-timing"],
        )


class CrossOrigin:
    """The headers of responses that do not pass through the middleware."""

    def __init__(self, origins: str) -> None:
        """origins: separated by commas, as in the setting cors_origins."""
        self.origins = origins.split(",")
        self._policy = CrossOriginMiddleware(_no_app, self.origins)

    def headers_for(self, origin: bytes | None) -> tuple[tuple[str, str], ...]:
        """The headers that let a page of that origin read a response; none if it may not."""
        if origin is None or not self._policy.is_allowed_origin(text := origin.decode("latin-1")):
            return ()
        allowed = "*" if self._policy.allow_all_origins else text
        headers = {**self._policy.simple_headers, "Access-Control-Allow-Origin": allowed}
        return (*((name.lower(), value) for name, value in headers.items()), ("vary", "Origin"))


async def _no_app(_: Scope, __: Receive, ___: Send) -> None:
    raise AssertionError("only the policy is used; this is a bug")

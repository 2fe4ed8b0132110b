"""Who may come in: each route asks for a role, and no caller comes too often."""

from collections.abc import MutableMapping
from typing import Any, Literal

from service.auth.api_keys import KeyRing, Role
from service.auth.rate_limit import RateLimit
from service.http.request_context import request_context_of
from service.settings import Settings

# What a route asks of whoever calls it: a key of that role, a key of any, or nothing.
Permission = Role | Literal["any", "open"]


class Authorizer:
    def __init__(self, settings: Settings) -> None:
        """Raises SetupError."""
        admin_key = settings.admin_key.get_secret_value() if settings.admin_key else None
        self.keys = KeyRing(settings.keys_file, admin_key)
        self._rate = RateLimit(settings.rate_limit) if settings.rate_limit else None

    def admit(self, access: Permission, scope: MutableMapping[str, Any]) -> None:
        """Raises UnauthorizedError, ForbiddenError or RateLimitedError."""
        if access == "open" or (self.keys.is_open and self._rate is None and access != "admin"):
            return
        authorization = request_context_of(scope).headers.get(b"authorization", b"")
        caller = self.keys.caller(None if access == "any" else access, authorization)
        if self._rate is not None:
            client = scope.get("client")
            self._rate.count(caller or (client[0] if client else "unknown"))

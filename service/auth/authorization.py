"""Who may call what: each route asks for a permission, and each caller keeps to a rate."""

from typing import Literal

from service.auth.api_keys import KeyRing, Role
from service.auth.rate_limit import RateLimit
from service.settings import Settings

# What a route requires of its caller: a key with that role, any key, or nothing.
Permission = Role | Literal["any", "open"]


class Authorizer:
    def __init__(self, settings: Settings) -> None:
        """Raises SetupError."""
        admin_key = settings.admin_key.get_secret_value() if settings.admin_key else None
        self.keys = KeyRing(settings.keys_file, admin_key)
        self._rate = RateLimit(settings.rate_limit) if settings.rate_limit else None

    def allows_all(self, permission: Permission) -> bool:
        """Whether every call with that permission is allowed, whoever sends it."""
        if permission == "open":
            return True
        return permission != "admin" and self.keys.allows_anonymous and self._rate is None

    def authorize(self, permission: Permission, authorization: bytes, client: str) -> None:
        """authorization: that header's value. client: address, which is the caller without a key.

        Raises UnauthorizedError, ForbiddenError or RateLimitedError.
        """
        if permission == "open" or self.allows_all(permission):
            return
        caller = self.keys.caller(None if permission == "any" else permission, authorization)
        if self._rate is not None:
            self._rate.count(caller or client)

"""Who may call what: each route asks for a permission, and each caller keeps to a rate."""

from ipaddress import IPv6Address, IPv6Network
from typing import Literal

from service.auth.api_keys import KeyRing, KeyScope, Role
from service.auth.rate_limit import RateLimit
from service.errors import ForbiddenError, UnauthorizedError
from service.settings import Settings

_IPV6_PREFIX = 64  # of the network that a provider gives to one customer

# What a route requires of its caller: a key with that role, any key, or nothing.
Permission = Role | Literal["any", "open"]


class Authorizer:
    def __init__(self, settings: Settings, scope: KeyScope | None = None) -> None:
        """scope: whose keys count, where there are several tenants. Raises SetupError."""
        admin_key = settings.admin_key.get_secret_value() if settings.admin_key else None
        self.keys = KeyRing(settings.keys_file, admin_key, scope)
        self._rate = RateLimit(settings.rate_limit) if settings.rate_limit else None

    def allows_all(self, permission: Permission) -> bool:
        """Whether every call with that permission is allowed, whoever sends it."""
        if permission == "open":
            return True
        return permission != "admin" and self.keys.allows_anonymous and self._rate is None

    def authorize(self, permission: Permission, authorization: bytes, client: str) -> str | None:
        """The caller to count further entries for; None if no rate is limited.

        authorization: that header's value. client: address, which is the caller without a valid
        key: so that keys cannot be guessed, or refusals be had, faster than the rate limit.
        Raises UnauthorizedError, ForbiddenError or RateLimitedError.
        """
        if permission == "open" or self.allows_all(permission):
            return None
        try:
            caller = self.keys.caller(None if permission == "any" else permission, authorization)
        except (UnauthorizedError, ForbiddenError):
            self._count(_network(client))
            raise
        return self._count(caller or _network(client))

    def _count(self, caller: str) -> str | None:
        if self._rate is None:
            return None
        self._rate.count(caller)
        return caller

    def count_entries(self, caller: str, entries: int) -> None:
        """Count the further entries of a batch: each is a request. Raises RateLimitedError."""
        if self._rate is not None:
            self._rate.count(caller, entries - 1, entries)


def _network(address: str) -> str:
    """What one client has: an IPv4 address, or a network of IPv6, in which it can take any."""
    if ":" not in address:
        return address
    try:
        ip = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ip.ipv4_mapped or IPv6Network((ip, _IPV6_PREFIX), strict=False))

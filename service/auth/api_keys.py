"""API keys and their roles. The file of keys holds hashes only, never a key.

Each line is `ROLES HASH`, such as `read,events 5f70bf18...`; text after a # is ignored. Several
keys may have the same role, so that a new key works before the old one is removed. A file for
several tenants has lines `ROLES HASH TENANT`, where `*` stands for all tenants.

Plain SHA-256 is right here, unlike for passwords: a key is 256 random bits, so nobody can guess it
and a slow hash or a salt would protect nothing, while every request has to be checked.
"""

import hmac
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

from service.errors import ForbiddenError, UnauthorizedError
from service.settings import SetupError
from service.tenants import is_tenant_name

Role = Literal["read", "events", "catalog", "erase", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

ALL_TENANTS = "*"
_PREFIX = "re4_"  # marks a leaked key as one of this service
_HASH_DIGITS = 64
_POLL_INTERVAL_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Key:
    digest: bytes
    roles: frozenset[Role]


def new_key() -> str:
    return _PREFIX + secrets.token_urlsafe(32)


def key_line(key: str, roles: Sequence[Role], tenant: str | None = None) -> str:
    """The line for the key in the file of keys."""
    line = f"{','.join(dict.fromkeys(roles))} {sha256(key.encode()).hexdigest()}"
    return line if tenant is None else f"{line} {tenant}"


@dataclass(frozen=True)
class KeyScope:
    """Whose keys of a file count.

    tenant: whose service it is; ALL_TENANTS for what is of the whole process. is_shared: whether
    the file is for several tenants, so that each of its lines names one.
    """

    tenant: str
    is_shared: bool = True

    def holds(self, tenant: str | None) -> bool:
        """Whether a key of the tenant that its line names counts. Raises ValueError."""
        if tenant is not None and tenant != ALL_TENANTS and not is_tenant_name(tenant):
            raise ValueError
        if self.is_shared:
            if tenant is None:
                raise ValueError
            return tenant in (self.tenant, ALL_TENANTS)
        if tenant not in (None, self.tenant):
            raise ValueError
        return True

    @property
    def line(self) -> str:
        """What a line of the file is like."""
        return "ROLES HASH TENANT" if self.is_shared else "ROLES HASH"


class KeyRing:
    """The keys of a file, read again when it changes, and the admin key of the settings.

    If a changed file cannot be used, that is logged and the previous keys stay.
    """

    def __init__(
        self,
        file: Path | None,
        admin_key: str | None,
        scope: KeyScope | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """file: without one, everything but the admin role needs no key.

        scope: None for the service of a single shop. clock: monotonic seconds. Raises SetupError.
        """
        self._file = file
        self._scope = scope
        self._clock = clock
        self._admin_keys = (
            [_Key(sha256(admin_key.encode()).digest(), frozenset(ROLES))] if admin_key else []
        )
        self._state = _state(file) if file else None
        self._keys = self._admin_keys + (_read(file, scope) if file else [])
        self._next_poll_s = clock() + _POLL_INTERVAL_S

    @property
    def allows_anonymous(self) -> bool:
        """Whether calls need no key, except for the admin role."""
        return self._file is None

    def caller(self, role: Role | None, authorization: bytes) -> str | None:
        """The caller's name, for this process only; None if no key is required.

        role: the required role; None if any key will do.
        Raises UnauthorizedError or ForbiddenError.
        """
        if self._file is None and role != "admin":
            return None
        key = self._key(authorization)
        if key is None:
            raise UnauthorizedError(
                "authorization: no key, or an unknown one; send a key as a bearer token"
            )
        if role is not None and role not in key.roles and "admin" not in key.roles:
            raise ForbiddenError(
                f"authorization: the key lacks the role {role}, which this needs; "
                "use a key that has it"
            )
        return key.digest.hex()

    def _key(self, authorization: bytes) -> _Key | None:
        self._refresh()
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        digest = sha256(token.strip()).digest()
        found = None
        for key in self._keys:  # all of them, even after a match: constant time
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def _refresh(self) -> None:
        if self._file is None or self._clock() < self._next_poll_s:
            return
        self._next_poll_s = self._clock() + _POLL_INTERVAL_S
        state = _state(self._file)
        if state == self._state:
            return
        self._state = state
        try:
            self._keys = self._admin_keys + _read(self._file, self._scope)
        except SetupError as error:
            log.error("keys refused, the previous ones stay", extra={"error": str(error)})
        else:
            log.info("keys read", extra={"keys": len(self._keys)})


def _state(file: Path) -> tuple[int, int, int] | None:
    """A value that differs once the file has changed."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _read(file: Path, scope: KeyScope | None) -> list[_Key]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{file}: cannot be read ({error})") from error
    keys = list(_parse(file, text, scope))
    if not keys and (scope is None or scope.tenant != ALL_TENANTS):
        of = f" of {scope.tenant}" if scope else ""
        raise SetupError(f"{file}: no key{of}; make one with: {_command(scope)}")
    return keys


def _parse(file: Path, text: str, scope: KeyScope | None) -> Iterator[_Key]:
    """The keys that count in the scope."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            roles, digits, *tenant = words
            if len(digits) != _HASH_DIGITS or not set(roles.split(",")) <= set(ROLES):
                raise ValueError
            key = _Key(bytes.fromhex(digits), frozenset(r for r in ROLES if r in roles.split(",")))
            if _holds(scope, tenant):
                yield key
        except ValueError:  # the line is not shown: it may hold a key
            raise SetupError(
                f"{file}: line {number} is not `{scope.line if scope else 'ROLES HASH'}`, with "
                f"roles among {', '.join(ROLES)} and {_HASH_DIGITS} digits; "
                f"make one with: {_command(scope)}"
            ) from None


def _holds(scope: KeyScope | None, tenant: Sequence[str]) -> bool:
    """tenant: the words after the hash. Raises ValueError."""
    if len(tenant) > 1 or (tenant and scope is None):
        raise ValueError
    return scope is None or scope.holds(tenant[0] if tenant else None)


def _command(scope: KeyScope | None) -> str:
    option = f" --tenant {scope.tenant}" if scope and scope.is_shared else ""
    return f"python -m service new-key{option}"

"""API keys and their roles. The file of keys holds hashes only, never a key.

Each line is `ROLES HASH`, such as `read,events 5f70bf18...`; text after a # is ignored. Several
keys may have the same role, so that a new key works before the old one is removed.

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

Role = Literal["read", "events", "catalog", "erase", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

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


def key_line(key: str, roles: Sequence[Role]) -> str:
    """The line for the key in the file of keys."""
    return f"{','.join(dict.fromkeys(roles))} {sha256(key.encode()).hexdigest()}"


class KeyRing:
    """The keys of a file, read again when it changes, and the admin key of the settings.

    If a changed file cannot be used, that is logged and the previous keys stay.
    """

    def __init__(
        self,
        file: Path | None,
        admin_key: str | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """file: without one, everything but the admin role needs no key.

        clock: monotonic seconds. Raises SetupError.
        """
        self._file = file
        self._clock = clock
        self._admin_keys = (
            [_Key(sha256(admin_key.encode()).digest(), frozenset(ROLES))] if admin_key else []
        )
        self._state = _state(file) if file else None
        self._keys = self._admin_keys + (_read(file) if file else [])
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
            self._keys = self._admin_keys + _read(self._file)
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


def _read(file: Path) -> list[_Key]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{file}: cannot be read ({error})") from error
    keys = list(_parse(file, text))
    if not keys:
        raise SetupError(f"{file}: no key; make one with: python -m service new-key")
    return keys


def _parse(file: Path, text: str) -> Iterator[_Key]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            roles, digits = words
            if len(digits) != _HASH_DIGITS or not set(roles.split(",")) <= set(ROLES):
                raise ValueError
            yield _Key(bytes.fromhex(digits), frozenset(r for r in ROLES if r in roles.split(",")))
        except ValueError:  # the line is not shown: it may hold a key
            raise SetupError(
                f"{file}: line {number} is not `ROLES HASH`, with roles among "
                f"{', '.join(ROLES)} and {_HASH_DIGITS} digits; "
                "make one with: python -m service new-key"
            ) from None

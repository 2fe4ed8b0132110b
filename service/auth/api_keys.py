"""API keys: which roles who sends one has. The file holds their hashes, and nothing the keys.

A line of it is `ROLES HASH`, such as `read,events 5f70bf18...`; what follows a # is passed over.
Several keys may have the same role, so that a new one is in use before the old one is taken out.

SHA-256 alone is right here, as it would not be for passwords: a key is 256 random bits, so there is
nothing to guess that a slow hash or a salt could protect, and every request has to be checked.
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

Role = Literal["read", "events", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

_PREFIX = "re4_"  # by which a key that has leaked is recognised
_HASH_DIGITS = 64
_LOOK_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Key:
    hashed: bytes
    roles: frozenset[Role]


def new_key() -> str:
    return _PREFIX + secrets.token_urlsafe(32)


def line_of(key: str, roles: Sequence[Role]) -> str:
    """What stands in the file for the key."""
    return f"{','.join(dict.fromkeys(roles))} {sha256(key.encode()).hexdigest()}"


class KeyRing:
    """The keys of a file, read again when it changes, and the one admin key of the settings.

    A changed file that cannot be used is logged, and the keys stay as they were.
    """

    def __init__(
        self,
        file: Path | None,
        admin_key: str | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without a file whoever comes may do all but administration, which always takes a key.

        clock: seconds that never go back. Raises SetupError.
        """
        self._file = file
        self._clock = clock
        self._own = (
            [_Key(sha256(admin_key.encode()).digest(), frozenset(ROLES))] if admin_key else []
        )
        self._state = _state(file) if file else None
        self._keys = self._own + (_read(file) if file else [])
        self._next_look = clock() + _LOOK_S

    @property
    def is_open(self) -> bool:
        return self._file is None

    def caller(self, role: Role | None, authorization: bytes) -> str | None:
        """Who calls, as a name for this process alone; None where no key is asked for.

        role: the role that is needed; None if any key will do.
        Raises UnauthorizedError or ForbiddenError.
        """
        if self._file is None and role != "admin":
            return None
        key = self._key(authorization)
        if key is None:
            raise UnauthorizedError(
                "authorization: no key, or not one of the service's; send one as a bearer token"
            )
        if role is not None and role not in key.roles and "admin" not in key.roles:
            raise ForbiddenError(
                f"authorization: the key may not do this, which takes the role {role}; "
                "use a key that has it"
            )
        return key.hashed.hex()

    def _key(self, authorization: bytes) -> _Key | None:
        self._refresh()
        scheme, _, given = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        hashed = sha256(given.strip()).digest()
        found = None
        for key in self._keys:  # all of them, however early one fits: the time tells nothing
            if hmac.compare_digest(key.hashed, hashed):
                found = key
        return found

    def _refresh(self) -> None:
        if self._file is None or self._clock() < self._next_look:
            return
        self._next_look = self._clock() + _LOOK_S
        state = _state(self._file)
        if state == self._state:
            return
        self._state = state
        try:
            self._keys = self._own + _read(self._file)
        except SetupError as error:
            log.error("keys refused, the old ones stay", extra={"error": str(error)})
        else:
            log.info("keys read", extra={"keys": len(self._keys)})


def _state(file: Path) -> tuple[int, int, int] | None:
    """What is another once the file has changed."""
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
        except ValueError:  # the line is not shown: somebody may have put a key there
            raise SetupError(
                f"{file}: line {number} is not `ROLES HASH`, with roles of {', '.join(ROLES)} and "
                f"{_HASH_DIGITS} digits; make one with: python -m service new-key"
            ) from None

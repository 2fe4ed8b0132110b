"""Reading and writing of availability in Redis, in pieces small enough for any number of items."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple
from uuid import uuid4

from service.store import availability_scripts as scripts
from service.store.redis_client import ResilientRedis
from service.store.redis_url import Client

_MAX_ENTRIES = 1000  # in one round trip
_MAX_CHANGES = 250  # in one script: they block the server for a millisecond or two
_EXPIRY_LOCK_S = 3600
EntryOrder = tuple[int, int]  # milliseconds and sequence number of an entry's id


class State(StrEnum):
    """Of an item. PLAIN: neither of the others."""

    WITHDRAWN = "withdrawn"
    ANNOUNCED = "announced"
    PLAIN = "plain"


class Change(NamedTuple):
    item: str
    state: State


class Entry(NamedTuple):
    """A change as it was recorded. previous, version: before and after it."""

    id: bytes
    change: Change
    previous: bytes
    version: bytes


@dataclass(frozen=True)
class Poll:
    """withdrawn: the number of items now. last_id: of the newest entry. entries: the next."""

    version: bytes
    withdrawn: int
    last_id: bytes
    entries: Sequence[Entry]

    @property
    def expected(self) -> int:
        """The number of withdrawn items that belongs to the version."""
        number = self.version.rpartition(b":")[2]
        return int(number) if b":" in self.version and number.isdigit() else 0

    def is_before(self, position: bytes) -> bool:
        """Whether the newest entry is older than an entry that was read before."""
        return _order(self.last_id) < _order(position)


class AvailabilityLog:
    """Every method raises HistoryUnavailableError."""

    def __init__(self, redis: ResilientRedis) -> None:
        keys = redis.keys
        self._redis = redis
        self._keys = (keys.withdrawn, keys.announced, keys.unknown, keys.version, keys.changes)

    async def write(self, changes: Sequence[Change]) -> list[tuple[bool, bool]]:
        """For each change whether it changed anything, and whether the item was announced."""
        result: list[tuple[bool, bool]] = []
        for first in range(0, len(changes), _MAX_CHANGES):
            flat = [text for change in changes[first : first + _MAX_CHANGES] for text in change]
            limits = (time.time(), scripts.MAX_ANNOUNCED)
            replies = await self._eval("withdraw", scripts.CHANGE, limits, flat)
            result += [(bool(changed), bool(announced)) for changed, announced in replies]
        return result

    async def expire(self, known: Mapping[str, bool], now: float, oldest: float) -> None:
        """Drop announcements older than `oldest`, and items that no release has known since.

        known: each withdrawn item, and whether the release knows it. now, oldest: Unix
        seconds.
        """
        items = list(known.items())
        for first in range(0, max(len(items), 1), _MAX_CHANGES):
            pairs = items[first : first + _MAX_CHANGES]
            flat = [text for item, is_known in pairs for text in (item, int(is_known))]
            await self._eval("expire", scripts.EXPIRE, (now, oldest), flat)

    async def may_expire(self) -> bool:
        """Whether this process is the one to look for expired ids this hour."""

        async def lock(client: Client) -> bool:
            return bool(await client.set(self._redis.keys.expiry, 1, nx=True, ex=_EXPIRY_LOCK_S))

        return await self._redis.call("expire", lock)

    async def poll(self, position: bytes, version: bytes) -> Poll:
        """What has changed since an entry and its version."""

        async def read(client: Client) -> list[Any]:
            arguments = (position, _MAX_ENTRIES, version)
            reply: list[Any] = await client.eval(
                scripts.POLL, len(self._keys), *self._keys, *arguments
            )
            return reply

        current, withdrawn, last_id, entries = await self._redis.call("withdrawn", read)
        return Poll(current, withdrawn, last_id, [_entry(*entry) for entry in entries])

    async def entries(self) -> list[Entry]:
        """All entries that the stream still has, oldest first."""
        found: list[Entry] = []
        poll = await self.poll(b"0-0", b"any other")
        while poll.entries:
            found += poll.entries
            poll = await self.poll(found[-1].id, b"any other")
        return found

    async def read_items(self) -> tuple[set[str], set[str]]:
        """The withdrawn and the announced items; those that change meanwhile may be missing."""
        withdrawn = await self._scan("sscan", self._redis.keys.withdrawn)
        announced = await self._scan("zscan", self._redis.keys.announced)
        return set(map(_text, withdrawn)), {_text(item) for item, _ in announced}

    async def _scan(self, command: Literal["sscan", "zscan"], key: str) -> list[Any]:
        found: list[Any] = []
        cursor = 0

        async def read(client: Client) -> tuple[int, list[Any]]:
            reply: tuple[int, list[Any]] = await getattr(client, command)(
                key, cursor, count=_MAX_ENTRIES
            )
            return reply

        while True:
            cursor, part = await self._redis.call("withdrawn", read)
            found += part
            if not cursor:
                return found

    async def _eval(
        self, operation: str, script: str, limits: tuple[float, float], arguments: Sequence[Any]
    ) -> list[Any]:
        now, limit = limits

        async def run(client: Client) -> list[Any]:
            head = (uuid4().hex, now, scripts.MAX_CHANGES, limit)
            reply: list[Any] = await client.eval(
                script, len(self._keys), *self._keys, *head, *arguments
            )
            return reply

        return await self._redis.call(operation, run)


def _entry(entry_id: bytes, flat: Sequence[bytes]) -> Entry:
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    change = Change(_text(fields[b"item"]), State(fields[b"state"].decode()))
    return Entry(entry_id, change, fields[b"previous"], fields[b"version"])


def _order(entry_id: bytes) -> EntryOrder:
    milliseconds, number = entry_id.split(b"-")
    return int(milliseconds), int(number)


def _text(item: bytes) -> str:
    return item.decode("utf-8", "replace")

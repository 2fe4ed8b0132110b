"""Items withdrawn between two releases: known in Redis, and a moment later to every worker.

re4:{withdrawn}:items    set of the ids that are to be in no answer
re4:{withdrawn}:version  what is another after each change of it
"""

import asyncio
import logging
from contextlib import suppress
from typing import Any
from uuid import uuid4

from index.release.reading import Release
from index.retrieval.catalog import PADDING
from service.errors import HistoryUnavailableError
from service.store.redis_client import ResilientRedis
from service.store.redis_url import Client

ITEMS = "re4:{withdrawn}:items"
VERSION = "re4:{withdrawn}:version"

_LOOK_S = 0.25
_NOTHING: frozenset[int] = frozenset()

# The new version is not a number counted up: a Redis that lost its data would count to it again.
_CHANGE = """
local items, version = unpack(KEYS)
local command, item, next = unpack(ARGV)
local changed = redis.call(command, items, item)
if changed == 1 then
  redis.call('SET', version, next)
end
return changed
"""

_LOOK = """
local items, version = unpack(KEYS)
local now = redis.call('GET', version) or ''
if now == ARGV[1] then
  return {now}
end
return {now, redis.call('SMEMBERS', items)}
"""

log = logging.getLogger(__name__)


class WithdrawnItems:
    """Which items are withdrawn, as this process last heard.

    While Redis is away it stays with what it knows. An item that no release knows yet may be
    withdrawn too.
    """

    def __init__(self, link: ResilientRedis) -> None:
        self._link = link
        self._looking = asyncio.Lock()  # an older look is not to end after a newer one
        self._version = b""
        self.items: frozenset[str] = frozenset()  # another object after each change
        self._rows: tuple[Release | None, frozenset[int]] = (None, _NOTHING)

    def __len__(self) -> int:
        return len(self.items)

    def rows(self, release: Release) -> frozenset[int]:
        """The rows of the release that are withdrawn; the same object until something changes."""
        known, rows = self._rows
        if known is not release:
            found = release.retriever.catalog.rows(self.items) if self.items else ()
            rows = frozenset(found) - {PADDING}
            self._rows = release, rows
        return rows

    async def set(self, item_id: str, available: bool) -> bool:
        """Withdraw an item, or make it available again; whether it was not so before.

        Other workers follow within a moment. Raises HistoryUnavailableError.
        """
        command, version = "SREM" if available else "SADD", uuid4().hex

        async def change(client: Client) -> int:
            changed: int = await client.eval(_CHANGE, 2, ITEMS, VERSION, command, item_id, version)
            return changed

        changed = await self._link.call("withdraw", change)
        await self.poll()
        return bool(changed)

    async def watch(self) -> None:
        """Look for changes, for ever."""
        while True:
            await asyncio.sleep(_LOOK_S)
            with suppress(HistoryUnavailableError):  # noted by the link
                await self.poll()

    async def poll(self) -> None:
        """Take over what has changed since the last look. Raises HistoryUnavailableError."""

        async def ask(client: Client) -> list[Any]:
            told: list[Any] = await client.eval(_LOOK, 2, ITEMS, VERSION, self._version)
            return told

        async with self._looking:
            version, *items = await self._link.call("withdrawn", ask)
            if items:
                self._take(version, items[0])

    def _take(self, version: Any, items: Any) -> None:
        self._version = version
        self.items = frozenset(item.decode("utf-8", "replace") for item in items)
        self._rows = (None, _NOTHING)
        log.info("items withdrawn", extra={"items": len(self.items)})

"""Items withdrawn between two releases: stored in Redis, and polled by every worker.

re4:{withdrawn}:items    set of the ids that must be in no response
re4:{withdrawn}:version  another value after each change of the set
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

_POLL_INTERVAL_S = 0.25
_EMPTY: frozenset[int] = frozenset()

# The new version is not a counter: a Redis that lost its data would count to the same number again.
_CHANGE = """
local items, version = unpack(KEYS)
local command, item, next = unpack(ARGV)
local changed = redis.call(command, items, item)
if changed == 1 then
  redis.call('SET', version, next)
end
return changed
"""

_POLL = """
local items, version = unpack(KEYS)
local now = redis.call('GET', version) or ''
if now == ARGV[1] then
  return {now}
end
return {now, redis.call('SMEMBERS', items)}
"""

log = logging.getLogger(__name__)


class WithdrawnItems:
    """The withdrawn items, as of this process's last poll.

    While Redis is down they stay as they are. An item that no release knows may be withdrawn too.
    """

    def __init__(self, redis: ResilientRedis) -> None:
        self._redis = redis
        self._poll_lock = asyncio.Lock()  # an older poll must not end after a newer one
        self._version = b""
        self.items: frozenset[str] = frozenset()  # another object after each change
        self._rows: tuple[Release | None, frozenset[int]] = (None, _EMPTY)

    def __len__(self) -> int:
        return len(self.items)

    def rows(self, release: Release) -> frozenset[int]:
        """The withdrawn rows of the release; the same object until something changes."""
        cached_release, rows = self._rows
        if cached_release is not release:
            found = release.retriever.catalog.rows(self.items) if self.items else ()
            rows = frozenset(found) - {PADDING}
            self._rows = release, rows
        return rows

    async def set(self, item_id: str, available: bool) -> bool:
        """Withdraw an item, or make it available again. Returns whether this changed anything.

        Other workers follow at their next poll. Raises HistoryUnavailableError.
        """
        command, version = "SREM" if available else "SADD", uuid4().hex

        async def change(client: Client) -> int:
            changed: int = await client.eval(_CHANGE, 2, ITEMS, VERSION, command, item_id, version)
            return changed

        changed = await self._redis.call("withdraw", change)
        await self.poll()
        return bool(changed)

    async def watch(self) -> None:
        """Poll for ever."""
        while True:
            await asyncio.sleep(_POLL_INTERVAL_S)
            with suppress(HistoryUnavailableError):  # recorded by ResilientRedis
                await self.poll()

    async def poll(self) -> None:
        """Read the set if it has changed since the last poll. Raises HistoryUnavailableError."""

        async def read(client: Client) -> list[Any]:
            reply: list[Any] = await client.eval(_POLL, 2, ITEMS, VERSION, self._version)
            return reply

        async with self._poll_lock:
            version, *items = await self._redis.call("withdrawn", read)
            if items:
                self._replace(version, items[0])

    def _replace(self, version: Any, items: Any) -> None:
        self._version = version
        self.items = frozenset(item.decode("utf-8", "replace") for item in items)
        self._rows = (None, _EMPTY)
        log.info("items withdrawn", extra={"items": len(self.items)})

"""What the pages of an answer have shown, so that the next page repeats none of it.

re4:{N}:pages:ID       sorted set: item -> the first page that had it, from 1; expired after
                       cursor-ttl-minutes without another page

A cursor names the set, and the last page that its client has. A page that is asked for again may
repeat itself, but nothing of the pages before: so whoever follows the cursors meets no item twice.
"""

import math
from collections.abc import Sequence
from typing import Any

from service.errors import InvalidRequestError, Problem
from service.settings import Settings
from service.store.cursors import START, Cursor
from service.store.redis_client import ResilientRedis
from service.store.redis_url import Client

# KEYS: pages. ARGV: page, seconds of cursor-ttl; then the items. Returns how many the set has.
_ADD = """
local page = tonumber(ARGV[1])
for i = 3, #ARGV do
  local first = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if not first or tonumber(first) > page then
    redis.call('ZADD', KEYS[1], page, ARGV[i])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
"""


class Pages:
    """Both methods raise HistoryUnavailableError."""

    def __init__(self, redis: ResilientRedis, settings: Settings) -> None:
        self._redis = redis
        self._ttl_s = math.ceil(settings.cursor_ttl_minutes * 60)
        self._max_items = settings.cursor_max_items

    async def shown(self, cursor: Cursor) -> list[str]:
        """The items of the pages up to the cursor's. Raises InvalidRequestError if it expired."""
        if not cursor.page:
            return []
        key = self._redis.keys.of_pages(cursor.id)

        async def run(client: Client) -> list[Any]:
            return [*await client.zrangebyscore(key, "-inf", cursor.page)]

        members = await self._redis.call("read", run, attempts=2)
        if not members:
            raise InvalidRequestError(
                [Problem("cursor", f"expired, or of no answer; begin again with {START!r}")]
            )
        return [member.decode("utf-8", "replace") for member in members]

    async def add(self, cursor: Cursor, items: Sequence[str]) -> Cursor | None:
        """Note what the page after the cursor's shows; its cursor, or None if it is the last that
        can be noted."""
        key = self._redis.keys.of_pages(cursor.id)
        following = cursor._replace(page=cursor.page + 1)
        arguments: list[Any] = [following.page, self._ttl_s, *items]

        async def run(client: Client) -> int:
            size: int = await client.eval(_ADD, 1, key, *arguments)
            return size

        size = await self._redis.call("note", run)
        return following if size < self._max_items else None

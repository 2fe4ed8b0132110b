"""Interactions with announced items that the release does not know: kept in Redis, bounded.

re4:{newcomers}:items    sorted set of the items by their last change, a number that only rises and
                         follows Redis's clock in ms; capped
re4:{newcomers}:of:ITEM  hash of the item's users, the newest of them: a digest of the user -> time
                         of the last interaction in ms, and the known items before it in the user's
                         history, newest last, as JSON; expires after cold-start-ttl-hours

Every process reads the same, whenever it was started. {prefix}:{newcomers}:takes is a stream of
earlier versions, which held the same for each process to add up; it is deleted.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from service.store.redis_client import ResilientRedis
from service.store.redis_url import Client

MAX_ITEMS = 10_000
MAX_USERS = 50  # the newest of an item
_MAX_CHANGED = 1000  # in one round trip
_MAX_READ = 50
_MAX_FORGOTTEN = 1000  # hashes in one script

# KEYS: items, the item's users. ARGV: now and the lifetime in ms, item, user, context, greatest
# numbers of users and items, the name of a hash without its item.
_RECORD = """
local items, users = unpack(KEYS)
local now, ttl_ms, item, user, context, max_users, max_items, hashes = unpack(ARGV)
local newest = redis.call('ZREVRANGE', items, 0, 0, 'WITHSCORES')[2] or 0
redis.call('HSET', users, user, string.format('%.0f', now) .. ' ' .. context)
if redis.call('HLEN', users) > tonumber(max_users) then
  local oldest, at
  local all = redis.call('HGETALL', users)
  for i = 1, #all, 2 do
    local moment = tonumber(string.match(all[i + 1], '^%d+'))
    if not at or moment < at then
      oldest, at = all[i], moment
    end
  end
  redis.call('HDEL', users, oldest)
end
redis.call('PEXPIRE', users, ttl_ms)
redis.call('ZADD', items, math.max(tonumber(now), newest + 1), item)
redis.call('ZREMRANGEBYSCORE', items, '-inf', now - ttl_ms)
local excess = redis.call('ZCARD', items) - max_items
if excess > 0 then
  for _, old in ipairs(redis.call('ZRANGE', items, 0, excess - 1)) do
    redis.call('DEL', hashes .. old)
    redis.call('ZREM', items, old)
  end
end
"""

# KEYS: items, the stream of earlier versions. ARGV: now in ms, user, the name of a hash without its
# item; items. The first write is one that a full Redis allows.
_FORGET = """
local items, takes = unpack(KEYS)
redis.call('DEL', takes)
for i = 4, #ARGV do
  if redis.call('HDEL', ARGV[3] .. ARGV[i], ARGV[2]) == 1 then
    local newest = redis.call('ZREVRANGE', items, 0, 0, 'WITHSCORES')[2] or 0
    redis.call('ZADD', items, math.max(tonumber(ARGV[1]), newest + 1), ARGV[i])
  end
end
"""

_CHANGED = """
local size = redis.call('ZCARD', KEYS[1])
return {size, redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf',
  'WITHSCORES', 'LIMIT', 0, ARGV[2])}
"""


class Interaction(NamedTuple):
    """A user's interaction with an item. at_ms: Unix time. context: see `after` above."""

    at_ms: int
    context: Sequence[str]


class Changed(NamedTuple):
    """size: of all items. items: some of those changed since, with their change; in order."""

    size: int
    items: Mapping[str, float]


class ColdStartStore:
    """Every method raises HistoryUnavailableError."""

    def __init__(self, redis: ResilientRedis, ttl_ms: float) -> None:
        self._redis = redis
        self._ttl_ms = int(ttl_ms)

    async def record(self, now_ms: int, taken: Sequence[tuple[str, str, Sequence[str]]]) -> None:
        """taken: item, user, and the known items before it in the user's history."""
        keys = self._redis.keys

        async def run(client: Client) -> None:
            pipeline = client.pipeline(transaction=False)
            for item, user, context in taken:
                arguments = (item, _digest(user), orjson.dumps(context), MAX_USERS, MAX_ITEMS)
                pipeline.eval(
                    *(_RECORD, 2, keys.newcomers, keys.users_of(item)),
                    *(now_ms, self._ttl_ms, *arguments, keys.users_of("")),
                )
            await pipeline.execute()

        await self._redis.call("cold_start", run)

    async def forget(self, now_ms: int, user: str, items: Sequence[str]) -> None:
        """Delete all of the user's interactions. items: all that there are, or more."""
        keys = self._redis.keys
        for first in range(0, max(len(items), 1), _MAX_FORGOTTEN):
            part = items[first : first + _MAX_FORGOTTEN]
            arguments = (now_ms, _digest(user), keys.users_of(""), *part)

            async def run(client: Client, arguments: Sequence[Any] = arguments) -> None:
                await client.eval(_FORGET, 2, keys.newcomers, keys.takes, *arguments)

            await self._redis.call("forget", run)

    async def changed(self, since: float) -> Changed:
        """The items changed after the change `since`, oldest first; at most a thousand."""

        async def run(client: Client) -> list[Any]:
            key = self._redis.keys.newcomers
            reply: list[Any] = await client.eval(_CHANGED, 1, key, f"{since:.0f}", _MAX_CHANGED)
            return reply

        size, flat = await self._redis.call("cold_start", run)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return Changed(size, {item.decode("utf-8", "replace"): float(at) for item, at in pairs})

    async def read(self, items: Sequence[str]) -> dict[str, list[Interaction]]:
        """The interactions of each item, newest last."""
        found: dict[str, list[Interaction]] = {}
        for first in range(0, len(items), _MAX_READ):
            part = items[first : first + _MAX_READ]

            async def run(client: Client, part: Sequence[str] = part) -> list[Any]:
                pipeline = client.pipeline(transaction=False)
                for item in part:
                    pipeline.hvals(self._redis.keys.users_of(item))
                return await pipeline.execute()

            for item, values in zip(part, await self._redis.call("cold_start", run), strict=True):
                found[item] = sorted(map(_interaction, values))
        return found


def _interaction(value: bytes) -> Interaction:
    at_ms, _, context = value.partition(b" ")
    return Interaction(int(at_ms), orjson.loads(context))


def _digest(user_id: str) -> str:
    """Distinguishes users without identifying them."""
    return hashlib.blake2b(user_id.encode(), digest_size=8).hexdigest()

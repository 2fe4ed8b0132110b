"""What a shop has said about items since the release was made: titles, categories, attributes.

re4:{withdrawn}:details       sorted set of the items with such details, by their last change, a
                              number that only rises and follows the time in ms; bounded
re4:{withdrawn}:details:ITEM  hash of the item's details, as JSON: `title`, `categories`, and each
                              attribute under its name after a `=`; bounded

What a shop does not name stays as it is. A full Redis refuses details, and still takes withdrawals,
which are other calls.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from index.retrieval.details import Details
from service.errors import TooManyDetailsError
from service.store.details import DetailsChange, details_in
from service.store.redis_client import ResilientRedis
from service.store.redis_url import Client

MAX_ITEMS = 100_000
MAX_FIELDS = 128  # of an item
_MAX_CHANGES = 250  # in one script: they block the server for a millisecond or two
_MAX_READ = 1000  # in one round trip
_ITEMS_REFUSED, _FIELDS_REFUSED = -1, -2

# KEYS: the sorted set; the hash of each item. ARGV: now in ms, greatest numbers of items and of
# fields; for each item its id, the number of its fields, and each field with its value, which is
# empty for one to delete. Returns for each whether it changed anything; or which limit forbids all
# of them. The first write is one that a full Redis refuses.
_CHANGE = """
local now, max_items, max_fields = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local function each(visit)
  local at = 4
  for i = 2, #KEYS do
    local last = at + 1 + 2 * ARGV[at + 1]
    visit(KEYS[i], ARGV[at], at + 2, last)
    at = last + 1
  end
end

local items, refused = redis.call('ZCARD', KEYS[1]), 0
local seen = {}
each(function(hash, item, first, last)
  local fields = redis.call('HLEN', hash)
  for i = first, last, 2 do
    if ARGV[i + 1] ~= '' and redis.call('HEXISTS', hash, ARGV[i]) == 0 then
      fields = fields + 1
    end
  end
  if fields > max_fields then
    refused = -2
  end
  if fields > 0 and not seen[item] and not redis.call('ZSCORE', KEYS[1], item) then
    seen[item] = true
    items = items + 1
  end
end)
if items > max_items then
  refused = -1
end
if refused < 0 then
  return {refused}
end

local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or 0
local result = {}
each(function(hash, item, first, last)
  local changed = 0
  for i = first, last, 2 do
    if ARGV[i + 1] == '' then
      changed = math.max(changed, redis.call('HDEL', hash, ARGV[i]))
    elseif redis.call('HGET', hash, ARGV[i]) ~= ARGV[i + 1] then
      redis.call('HSET', hash, ARGV[i], ARGV[i + 1])
      changed = 1
    end
  end
  if redis.call('EXISTS', hash) == 0 then
    redis.call('ZREM', KEYS[1], item)
  elseif changed == 1 then
    newest = math.max(now, newest + 1)
    redis.call('ZADD', KEYS[1], newest, item)
  end
  result[#result + 1] = changed
end)
return result
"""

# KEYS: the sorted set. ARGV: the last change read, and how many to read at most.
_CHANGED = """
local changed = redis.call(
  'ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
return {redis.call('ZCARD', KEYS[1]), changed}
"""


class ItemDetails:
    """Every method raises HistoryUnavailableError."""

    def __init__(self, redis: ResilientRedis) -> None:
        self._redis = redis

    async def change(self, changes: Sequence[tuple[str, DetailsChange]]) -> list[bool]:
        """For each item whether anything changed, in order.

        Raises TooManyDetailsError; then some of the items may have changed.
        """
        changed: list[bool] = []
        for first in range(0, len(changes), _MAX_CHANGES):
            changed += await self._change(changes[first : first + _MAX_CHANGES])
        return changed

    async def read(self, item: str) -> Details:
        """The details of an item, empty if there are none."""

        async def run(client: Client) -> dict[Any, Any]:
            return await client.hgetall(self._redis.keys.details_of(item))

        return details_of(await self._redis.call("details", run))

    async def changed(self, since: float) -> tuple[int, dict[str, float]]:
        """The number of items with details, and those changed since, with their change: the oldest
        changes, and none only if there are none.

        An item whose details were taken back is only missing in the number.
        """

        async def run(client: Client) -> list[Any]:
            arguments = (self._redis.keys.details, since, _MAX_READ)
            reply: list[Any] = await client.eval(_CHANGED, 1, *arguments)
            return reply

        count, flat = await self._redis.call("details", run)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return count, {item.decode("utf-8", "replace"): float(change) for item, change in pairs}

    async def read_all(self, items: Sequence[str]) -> dict[str, Details]:
        """The details of each item, empty where there are none."""

        async def run(client: Client) -> list[dict[Any, Any]]:
            pipeline = client.pipeline(transaction=False)
            for item in items:
                pipeline.hgetall(self._redis.keys.details_of(item))
            return await pipeline.execute()

        replies = await self._redis.call("details", run)
        return {item: details_of(stored) for item, stored in zip(items, replies, strict=True)}

    async def _change(self, changes: Sequence[tuple[str, DetailsChange]]) -> list[bool]:
        keys = self._redis.keys
        hashes = [keys.details_of(item) for item, _ in changes]
        arguments: list[Any] = [int(time.time() * 1000), MAX_ITEMS, MAX_FIELDS]
        for item, change in changes:
            arguments += [item, len(change.fields)]
            for name, value in change.fields.items():
                arguments += [name, b"" if value is None else orjson.dumps(value)]

        async def run(client: Client) -> list[int]:
            reply: list[int] = await client.eval(
                _CHANGE, 1 + len(hashes), keys.details, *hashes, *arguments
            )
            return reply

        replies = await self._redis.call("details", run)
        if replies[0] == _ITEMS_REFUSED:
            raise TooManyDetailsError(
                f"details of {MAX_ITEMS:,} items are stored, and no more are; put those of others "
                "into the item file of the next release"
            )
        if replies[0] == _FIELDS_REFUSED:
            raise TooManyDetailsError(
                f"an item with more than {MAX_FIELDS} stored details; null forgets an attribute"
            )
        return [bool(reply) for reply in replies]


def details_of(stored: Mapping[bytes, bytes]) -> Details:
    """From the hash of an item."""
    return details_in(
        {name.decode("utf-8", "replace"): orjson.loads(value) for name, value in stored.items()}
    )

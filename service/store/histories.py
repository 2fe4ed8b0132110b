"""Recent histories and the event stream, in Redis; the same on one server and in a Cluster.

Users are divided among 64 partitions by CRC-32 of their id. The keys of a partition have its number
as their hash tag: they are on one server, and one script changes all of them or none.

re4:{N}:events         stream of the partition's events, capped: user_id, item_id, timestamp (Unix
                       seconds), and event and event_id where given; until exported
re4:{N}:waiting        number of entries that were added and not exported, dropped ones included
re4:{N}:history:USER   list of item ids, newest last; capped, and expired after history-ttl-days
                       without an event
re4:{N}:seen:USER      sorted set of the ids of the user's events by time of arrival, for
                       event-dedup-ttl-hours: an event whose id is in it is a duplicate
re4:{N}:forgotten:USER when the user was last forgotten, in whole Unix seconds, for as long: an
                       event that arrives now and happened before is left out

A forgotten user is an entry of the stream without item_id: user_id, timestamp, and the event
`forget`, which no client can send. Whoever reads the stream, now or for training, leaves out the
user's entries before it, also those read earlier. Of later entries those count whose timestamp is
not earlier than that of the `forget`.
"""

import asyncio
import math
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from zlib import crc32

from redis.exceptions import InvalidResponse, RedisError, ResponseError

from service.errors import HistoryUnavailableError
from service.settings import Settings
from service.store.events import FORGET, Event
from service.store.redis_client import UNAVAILABLE, ResilientRedis
from service.store.redis_url import Client
from service.telemetry.metrics import Metrics

PARTITIONS = 64
STREAMS = tuple(f"re4:{{{partition}}}:events" for partition in range(PARTITIONS))
UNEXPORTED = tuple(f"re4:{{{partition}}}:waiting" for partition in range(PARTITIONS))

_APPEND_KEYS = ("events", "waiting", "history", "seen", "forgotten")
_APPEND_COUNTS = 3  # in the script's reply
_MAX_READS = 64  # in one round trip
_MAX_EVENTS = 100  # in one round trip: they block the server for a few milliseconds
# Shares of the timeout. A read that has waited for the first share behind another round trip starts
# its own: one after the other, the two could take twice the timeout. A round trip may take the
# second share; what remains is for timers, which are late.
_MAX_QUEUE_SHARE, _ROUND_TRIP_SHARE = 0.1, 0.85

# A full Redis rejects a script's first write, and with it the whole script.
_APPEND = """
local stream, waiting, history, seen, forgotten = unpack(KEYS)
local now, max_length, history_ttl_s, dedup_ttl_s, stream_length = unpack(ARGV, 1, 5)
local since = tonumber(redis.call('GET', forgotten) or 0)
local accepted, duplicates, outdated = 0, 0, 0
for i = 6, #ARGV, 5 do
  local user, item, timestamp, event, id = unpack(ARGV, i, i + 4)
  if tonumber(timestamp) < since then
    outdated = outdated + 1
  elseif id ~= '' and redis.call('ZSCORE', seen, id) then
    duplicates = duplicates + 1
  else
    local entry = {'user_id', user, 'item_id', item, 'timestamp', timestamp}
    for name, value in pairs({event = event, event_id = id}) do
      if value ~= '' then
        entry[#entry + 1] = name
        entry[#entry + 1] = value
      end
    end
    redis.call('RPUSH', history, item)
    redis.call('XADD', stream, 'MAXLEN', '~', stream_length, '*', unpack(entry))
    if id ~= '' then
      redis.call('ZADD', seen, now, id)
    end
    accepted = accepted + 1
  end
end
redis.call('INCRBY', waiting, accepted)
redis.call('LTRIM', history, -max_length, -1)
redis.call('EXPIRE', history, history_ttl_s)
redis.call('ZREMRANGEBYSCORE', seen, '-inf', '(' .. (now - dedup_ttl_s))
redis.call('EXPIRE', seen, dedup_ttl_s)
return {accepted, duplicates, outdated}
"""

_FORGET = """
local stream, waiting, history, forgotten = unpack(KEYS)
local user, event, now, dedup_ttl_s, stream_length = unpack(ARGV)
redis.call('SET', forgotten, now, 'EX', dedup_ttl_s)
redis.call('XADD', stream, 'MAXLEN', '~', stream_length, '*',
  'user_id', user, 'timestamp', now, 'event', event)
redis.call('INCR', waiting)
local items = redis.call('LLEN', history)
redis.call('DEL', history)
return items
"""


@dataclass(frozen=True, slots=True)
class Appended:
    """Counts of events.

    duplicates: sent before, by their id. outdated: from before their user was forgotten.
    """

    accepted: int = 0
    duplicates: int = 0
    outdated: int = 0


class HistoryStore:
    """Histories and events; every method raises HistoryUnavailableError, after the timeout at most.

    Reads that arrive during a round trip go to Redis together in the next: a third of the work.
    """

    def __init__(self, redis: ResilientRedis, settings: Settings, metrics: Metrics) -> None:
        self._redis = redis
        self._metrics = metrics
        self._max_length = settings.history_max_length
        self._history_ttl_s = math.ceil(settings.history_ttl_days * 86_400)
        self._dedup_ttl_s = math.ceil(settings.event_dedup_ttl_hours * 3600)
        self._stream_length = math.ceil(settings.event_stream_max_length / PARTITIONS)
        self._pending: deque[_PendingRead] = deque()
        self._readers = 0

    async def read(self, user_id: str) -> list[str]:
        """The user's newest items, newest last; none for an unknown user."""
        self._redis.admit()
        loop = asyncio.get_running_loop()
        read = _PendingRead(user_id, loop.create_future())
        self._pending.append(read)
        if not self._readers:
            self._start_reader()
        elif len(self._pending) == 1:
            loop.call_later(_MAX_QUEUE_SHARE * self._redis.timeout_s, self._start_another_reader)
        return [item.decode("utf-8", "replace") for item in await read.items]

    async def append(self, events: Sequence[Event]) -> Appended:
        """Add the events to their users' histories and to the stream, in batches.

        Nothing is retried here. If this raises, some events may have been added: of each user those
        in one batch, or none of them. Sent again, events with an id are not added twice.
        """
        counts: list[list[int]] = []
        for first in range(0, len(events), _MAX_EVENTS):
            batch = events[first : first + _MAX_EVENTS]
            replies = await self._redis.call("append", partial(self._append_batch, batch))
            self._metrics.events.inc(sum(accepted for accepted, *_ in replies))
            counts += replies
        return Appended(*map(sum, zip(*counts, strict=True)))

    async def forget(self, user_id: str) -> int:
        """Delete the user's history, and add that to the stream. Returns the items that it had."""
        keys = [_key(user_id, name) for name in ("events", "waiting", "history", "forgotten")]
        now = int(time.time())
        arguments: list[Any] = [user_id, FORGET, now, self._dedup_ttl_s, self._stream_length]

        async def run(client: Client) -> int:
            items: int = await client.eval(_FORGET, len(keys), *keys, *arguments)
            return items

        return await self._redis.call("forget", run)

    async def _append_batch(self, events: Sequence[Event], client: Client) -> list[list[int]]:
        now = time.time()
        fields_of: dict[str, list[Any]] = defaultdict(list)
        for event in events:
            at = now if event.timestamp is None else event.timestamp
            fields = (event.user_id, event.item_id, at, event.event or "", event.event_id or "")
            fields_of[event.user_id] += fields
        limits = (
            now,
            self._max_length,
            self._history_ttl_s,
            self._dedup_ttl_s,
            self._stream_length,
        )
        pipeline = client.pipeline(transaction=False)
        for user_id, arguments in fields_of.items():
            keys = [_key(user_id, name) for name in _APPEND_KEYS]
            pipeline.eval(_APPEND, len(keys), *keys, *limits, *arguments)
        replies: list[list[int]] = await pipeline.execute()
        if not all(isinstance(reply, list) and len(reply) == _APPEND_COUNTS for reply in replies):
            raise InvalidResponse("not the counts that the script returns")
        return replies

    # --- reading in batches ---

    def _start_reader(self) -> None:
        self._readers += 1
        self._redis.spawn(self._read_until_empty())

    def _start_another_reader(self) -> None:
        if self._pending:
            self._start_reader()

    async def _read_until_empty(self) -> None:
        try:
            while self._pending:
                await self._read_next()
        finally:
            self._readers -= 1
            if self._pending and not self._readers:  # ended by an error: others still wait
                self._start_reader()

    async def _read_next(self) -> None:
        batch = [self._pending.popleft() for _ in range(min(len(self._pending), _MAX_READS))]
        try:
            replies = await self._redis.call(
                "read",
                partial(self._read_batch, batch),
                attempts=2,
                timeout_s=_ROUND_TRIP_SHARE * self._redis.timeout_s,
            )
        except (Exception, asyncio.CancelledError) as error:  # so that no caller waits for ever
            cause = error if isinstance(error, Exception) else HistoryUnavailableError(UNAVAILABLE)
            replies = [cause] * len(batch)
        for read, reply in zip(batch, replies, strict=True):
            self._resolve(read, reply)

    async def _read_batch(self, batch: Sequence["_PendingRead"], client: Client) -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        for read in batch:
            pipeline.lrange(_key(read.user_id, "history"), -self._max_length, -1)
        replies = await pipeline.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, RedisError) and not isinstance(reply, ResponseError):
                raise reply  # a Cluster's pipeline does not raise it, unlike that of one server
            if not isinstance(reply, list | ResponseError):
                raise InvalidResponse("not a list, as a history must be")
        return replies

    def _resolve(self, read: "_PendingRead", reply: list[bytes] | Exception) -> None:
        if read.items.done():
            return  # the caller was cancelled
        if isinstance(reply, ResponseError):
            self._redis.record_failure("read", reply)
        if isinstance(reply, RedisError | HistoryUnavailableError):
            read.items.set_exception(HistoryUnavailableError(UNAVAILABLE))
        elif isinstance(reply, Exception):
            read.items.set_exception(reply)
        else:
            read.items.set_result(reply)


@dataclass(frozen=True, slots=True)
class _PendingRead:
    user_id: str
    items: asyncio.Future[list[bytes]]


def _key(user_id: str, name: str) -> str:
    key = f"re4:{{{crc32(user_id.encode()) % PARTITIONS}}}:{name}"
    return key if name in ("events", "waiting") else f"{key}:{user_id}"

"""Recent histories and the event stream, in Redis, the same on one server and in a Cluster.

Users are divided among 64 parts by CRC-32 of their id. What belongs to a part has its number as the
hash tag of its keys, so it lies on one server, and one script changes all of it or nothing:

re4:{PART}:events         stream of the part's events, capped: user_id, item_id, timestamp (Unix
                          seconds), and event and event_id where given; until exported
re4:{PART}:waiting        how many came to the stream and were not exported, those dropped included
re4:{PART}:history:USER   list of item ids, newest last; capped, and gone after history-ttl-days
                          without an event
re4:{PART}:seen:USER      sorted set of the ids of the user's events by when they came, for
                          event-dedup-ttl-hours: an event whose id is in it is not taken again
re4:{PART}:forgotten:USER when the user was last forgotten, in whole Unix seconds, as long: what
                          happened before, and comes now, is left out

That a user was forgotten stands in the stream as an entry without item_id, whose event is `forget`,
which no event of a client can be: user_id, timestamp, event. Whoever reads the stream, now or for
training, leaves out what stands before it there of that user, and what it took from there earlier.
Of events that come later those count that happened, by their timestamp, no earlier than it says.
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
from service.http.schemas.histories import FORGET, Event
from service.settings import Settings
from service.store.redis_client import UNAVAILABLE, ResilientRedis
from service.store.redis_url import Client
from service.telemetry.metrics import Metrics

PARTS = 64
STREAMS = tuple(f"re4:{{{part}}}:events" for part in range(PARTS))
WAITING = tuple(f"re4:{{{part}}}:waiting" for part in range(PARTS))

_APPENDED = ("events", "waiting", "history", "seen", "forgotten")
_COUNTS = 3  # that the script gives
_READS = 64  # histories in one round trip
_EVENTS = 100  # in one round trip: a few milliseconds of work of a server that does nothing else
# Shares of the budget. What has waited so long behind another read is read on its own: were each as
# slow as it may be, the two would take twice the budget. The rest is for timers, which are late.
_ASIDE, _READING = 0.1, 0.85

# The first that a script writes is what a full Redis refuses, and so it refuses all.
_APPEND = """
local stream, waiting, history, seen, forgotten = unpack(KEYS)
local now, items, history_s, memory_s, length = unpack(ARGV, 1, 5)
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
    redis.call('XADD', stream, 'MAXLEN', '~', length, '*', unpack(entry))
    if id ~= '' then
      redis.call('ZADD', seen, now, id)
    end
    accepted = accepted + 1
  end
end
redis.call('INCRBY', waiting, accepted)
redis.call('LTRIM', history, -items, -1)
redis.call('EXPIRE', history, history_s)
redis.call('ZREMRANGEBYSCORE', seen, '-inf', '(' .. (now - memory_s))
redis.call('EXPIRE', seen, memory_s)
return {accepted, duplicates, outdated}
"""

_FORGET = """
local stream, waiting, history, forgotten = unpack(KEYS)
local user, event, now, memory_s, length = unpack(ARGV)
redis.call('SET', forgotten, now, 'EX', memory_s)
redis.call('XADD', stream, 'MAXLEN', '~', length, '*',
  'user_id', user, 'timestamp', now, 'event', event)
redis.call('INCR', waiting)
local items = redis.call('LLEN', history)
redis.call('DEL', history)
return items
"""


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of events.

    duplicates: sent before, by their id. outdated: from before their user was forgotten.
    """

    accepted: int = 0
    duplicates: int = 0
    outdated: int = 0


class HistoryStore:
    """Histories within the budget of the link; every method raises HistoryUnavailableError.

    Reads that come while another is under way go to Redis together: one round trip, and a third of
    the work.
    """

    def __init__(self, link: ResilientRedis, settings: Settings, metrics: Metrics) -> None:
        self._link = link
        self._metrics = metrics
        self._items = settings.history_max_length
        self._history_s = math.ceil(settings.history_ttl_days * 86_400)
        self._memory_s = math.ceil(settings.event_dedup_ttl_hours * 3600)
        self._stream_length = math.ceil(settings.event_stream_max_length / PARTS)
        self._wanted: deque[_Wanted] = deque()
        self._readers = 0

    async def read(self, user_id: str) -> list[str]:
        """The user's newest items, newest last; none for an unknown user."""
        self._link.admit()
        loop = asyncio.get_running_loop()
        wanted = _Wanted(user_id, loop.create_future())
        self._wanted.append(wanted)
        if not self._readers:
            self._start_reader()
        elif len(self._wanted) == 1:
            loop.call_later(_ASIDE * self._link.budget_s, self._read_aside)
        return [item.decode("utf-8", "replace") for item in await wanted.items]

    async def append(self, events: Sequence[Event]) -> Appended:
        """Add the events to their users' histories and to the stream, some at a time.

        Nothing is tried again from here. If this raises, some may be there: those of a user in one
        of the hundreds that go to Redis together are there together or not. Sent again, those with
        an id are not there twice.
        """
        counts: list[list[int]] = []
        for first in range(0, len(events), _EVENTS):
            batch = events[first : first + _EVENTS]
            replies = await self._link.call("append", partial(self._append_batch, batch))
            self._metrics.events.inc(sum(accepted for accepted, *_ in replies))
            counts += replies
        return Appended(*map(sum, zip(*counts, strict=True)))

    async def forget(self, user_id: str) -> int:
        """Delete the user's history, and tell so in the stream; the items that were in it."""
        keys = [_key(user_id, name) for name in ("events", "waiting", "history", "forgotten")]
        now = int(time.time())
        arguments: list[Any] = [user_id, FORGET, now, self._memory_s, self._stream_length]

        async def run(client: Client) -> int:
            items: int = await client.eval(_FORGET, len(keys), *keys, *arguments)
            return items

        return await self._link.call("forget", run)

    async def _append_batch(self, events: Sequence[Event], client: Client) -> list[list[int]]:
        now = time.time()
        of_user: dict[str, list[Any]] = defaultdict(list)
        for event in events:
            at = now if event.timestamp is None else event.timestamp
            fields = (event.user_id, event.item_id, at, event.event or "", event.event_id or "")
            of_user[event.user_id] += fields
        limits = (now, self._items, self._history_s, self._memory_s, self._stream_length)
        pipeline = client.pipeline(transaction=False)
        for user_id, arguments in of_user.items():
            keys = [_key(user_id, name) for name in _APPENDED]
            pipeline.eval(_APPEND, len(keys), *keys, *limits, *arguments)
        replies: list[list[int]] = await pipeline.execute()
        if not all(isinstance(reply, list) and len(reply) == _COUNTS for reply in replies):
            raise InvalidResponse("not the counts that the script gives")
        return replies

    # --- reading together ---

    def _start_reader(self) -> None:
        self._readers += 1
        self._link.spawn(self._read_on())

    def _read_aside(self) -> None:
        if self._wanted:
            self._start_reader()

    async def _read_on(self) -> None:
        """Read what is wanted, in batches, until nothing is."""
        try:
            while self._wanted:
                await self._read_some()
        finally:
            self._readers -= 1

    async def _read_some(self) -> None:
        batch = [self._wanted.popleft() for _ in range(min(len(self._wanted), _READS))]
        try:
            replies = await self._link.call(
                "read",
                partial(self._read_batch, batch),
                attempts=2,
                budget_s=_READING * self._link.budget_s,
            )
        except Exception as error:  # whatever it is, somebody waits to be told
            replies = [error] * len(batch)
        for wanted, reply in zip(batch, replies, strict=True):
            self._hand_over(wanted, reply)

    async def _read_batch(self, batch: Sequence["_Wanted"], client: Client) -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        for wanted in batch:
            pipeline.lrange(_key(wanted.user_id, "history"), -self._items, -1)
        replies = await pipeline.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, RedisError) and not isinstance(reply, ResponseError):
                raise reply  # as one server's pipeline does, and a Cluster's does not
            if not isinstance(reply, list | ResponseError):
                raise InvalidResponse("not a list, which alone a history can be")
        return replies

    def _hand_over(self, wanted: "_Wanted", reply: list[bytes] | Exception) -> None:
        if wanted.items.done():
            return  # whoever wanted it has gone
        if isinstance(reply, ResponseError):
            self._link.failed("read", reply)
        if isinstance(reply, RedisError | HistoryUnavailableError):
            wanted.items.set_exception(HistoryUnavailableError(UNAVAILABLE))
        elif isinstance(reply, Exception):
            wanted.items.set_exception(reply)
        else:
            wanted.items.set_result(reply)


@dataclass(frozen=True, slots=True)
class _Wanted:
    user_id: str
    items: asyncio.Future[list[bytes]]


def _key(user_id: str, name: str) -> str:
    part = f"re4:{{{crc32(user_id.encode()) % PARTS}}}:{name}"
    return part if name in ("events", "waiting") else f"{part}:{user_id}"

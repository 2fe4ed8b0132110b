"""Recent histories and the event stream, in Redis; the same on one server and in a Cluster.

Keys by partition of the users, see service.store.keys; re4 is the setting redis-prefix:

re4:{N}:events         stream of the partition's events, capped: user_id, item_id, timestamp (Unix
                       seconds), and event, event_id and impression_id where given; until exported
re4:{N}:waiting        number of entries that were added and not exported, dropped ones included
re4:{N}:history:USER   list of item ids in order of their events' time, newest last; capped, and
                       expired after history-ttl-days without an event
re4:{N}:times:USER     list of these times, in Unix seconds; 0 if unknown
re4:{N}:met:USER       sorted set of the items of all events that have an effect, by their kind, see
                       service.store.seen_items; capped, and expired like the history
re4:{N}:beyond:USER    exists if items were met that the history does not have; expired like it
re4:{N}:shown:USER     what the user was shown, see service.store.shown_items
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
from itertools import islice
from typing import Any, NamedTuple

from redis.exceptions import InvalidResponse, RedisError, ResponseError

from service.errors import HistoryUnavailableError
from service.settings import Settings
from service.store.events import FORGET, Event
from service.store.history_scripts import APPEND, READ
from service.store.history_scripts import FORGET as FORGET_USER
from service.store.keys import PARTITIONS
from service.store.redis_client import UNAVAILABLE, ResilientRedis
from service.store.redis_url import Client
from service.store.seen_items import ALL_SEEN, SeenItems
from service.store.shown_items import ShownCap
from service.telemetry.metrics import Metrics

_APPEND_KEYS = (
    "events",
    "waiting",
    "history",
    "times",
    "seen",
    "forgotten",
    "met",
    "beyond",
    "shown",
)
_FORGET_KEYS = ("events", "waiting", "history", "times", "met", "beyond", "shown", "forgotten")
_READ_KEYS = ("history", "met", "beyond", "shown")
_APPEND_COUNTS = 4  # in the script's reply
_MAX_READS = 64  # in one round trip
_MAX_EVENTS = 100  # in one round trip: they block the server for a few milliseconds
# Shares of the timeout. A read that has waited for the first share behind another round trip starts
# its own: one after the other, the two could take twice the timeout. A round trip may take the
# second share; what remains is for timers, which are late.
_MAX_QUEUE_SHARE, _ROUND_TRIP_SHARE = 0.1, 0.85


@dataclass(frozen=True, slots=True)
class Appended:
    """Counts of events.

    accepted: in the event stream, and of effect unless they are too late for it. duplicates:
    sent before, by their id. outdated: from before their user was forgotten.
    """

    accepted: int = 0
    duplicates: int = 0
    outdated: int = 0


class StoredUser(NamedTuple):
    """history: the newest items, newest last. seen, shown: the items that were asked for, in no
    order."""

    history: list[str]
    seen: list[str]
    shown: list[str]


class HistoryStore:
    """Histories and events; every method raises HistoryUnavailableError, after the timeout at most.

    Reads that arrive during a round trip go to Redis together in the next: a third of the work.
    """

    def __init__(self, redis: ResilientRedis, settings: Settings, metrics: Metrics) -> None:
        self._redis = redis
        self._metrics = metrics
        self._max_length = settings.history_max_length
        self._history_ttl_s = math.ceil(settings.history_ttl_days * 86_400)
        self._lateness_s = settings.allowed_lateness_hours * 3600
        self._dedup_ttl_s = math.ceil(settings.event_dedup_ttl_hours * 3600)
        self._stream_length = math.ceil(settings.event_stream_max_length / PARTITIONS)
        self._seen_items = settings.seen_max_items
        self._folds = int(not settings.keep_repeats)
        self._shown_limits = settings.shown_max_items, math.ceil(settings.shown_ttl_days * 86_400)
        self._kinds = settings.event_kinds
        self._pending: deque[_PendingRead] = deque()
        self._readers = 0

    async def read(self, user_id: str) -> list[str]:
        """The user's newest items, newest last; none for an unknown user."""
        return (await self.read_user(user_id)).history

    async def read_user(
        self, user_id: str, seen: SeenItems | None = None, cap: ShownCap | None = None
    ) -> StoredUser:
        """The history, and what else is wanted, in the same round trip.

        seen: of ALL_SEEN, those that the history has may be left out.
        """
        self._redis.admit()
        loop = asyncio.get_running_loop()
        read = _PendingRead(user_id, seen, cap, loop.create_future())
        self._pending.append(read)
        if not self._readers:
            self._start_reader()
        elif len(self._pending) == 1:
            loop.call_later(_MAX_QUEUE_SHARE * self._redis.timeout_s, self._start_another_reader)
        items, *others = await read.replies
        history = [item.decode("utf-8", "replace") for item in items]
        return StoredUser(
            history,
            [] if seen is None else seen.items(others.pop(0)),
            [] if cap is None else cap.reached(others.pop(0)),
        )

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
            self._metrics.late_events.inc(sum(late for *_, late in replies))
            counts += [reply[:-1] for reply in replies]
        return Appended(*map(sum, zip(*counts, strict=True)))

    async def forget(self, user_id: str) -> int:
        """Delete the user's history, and add that to the stream. Returns the items that it had."""
        keys = self._keys_of(user_id, _FORGET_KEYS)
        now = int(time.time())
        arguments: list[Any] = [user_id, FORGET, now, self._dedup_ttl_s, self._stream_length]

        async def run(client: Client) -> int:
            items: int = await client.eval(FORGET_USER, len(keys), *keys, *arguments)
            return items

        return await self._redis.call("forget", run)

    async def _append_batch(self, events: Sequence[Event], client: Client) -> list[list[int]]:
        now = time.time()
        fields_of: dict[str, list[Any]] = defaultdict(list)
        for place, event in enumerate(events, start=-len(events)):
            # A microsecond apart: whoever orders them by time has them as they came.
            at = now + place * 1e-6 if event.timestamp is None else min(event.timestamp, now)
            kind, effect = event.event or "", self._kinds.effect(event.event)
            ids = event.event_id or "", event.impression_id or ""
            fields_of[event.user_id] += (event.user_id, event.item_id, at, kind, *ids, effect)
        limits = (
            now,
            self._max_length,
            self._history_ttl_s,
            self._dedup_ttl_s,
            self._lateness_s,
            self._stream_length,
            self._seen_items,
            self._folds,
            *self._shown_limits,
        )
        pipeline = client.pipeline(transaction=False)
        for user_id, arguments in fields_of.items():
            keys = self._keys_of(user_id, _APPEND_KEYS)
            pipeline.eval(APPEND, len(keys), *keys, *limits, *arguments)
        replies: list[list[int]] = await pipeline.execute()
        if not all(isinstance(reply, list) and len(reply) == _APPEND_COUNTS for reply in replies):
            raise InvalidResponse("not the counts that the script returns")
        return replies

    def _keys_of(self, user_id: str, names: Sequence[str]) -> list[str]:
        return [self._redis.keys.of_user(user_id, name) for name in names]

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
        """The replies to each read, or the error of one of them."""
        pipeline = client.pipeline(transaction=False)
        for read in batch:
            history, met, beyond, shown = self._keys_of(read.user_id, _READ_KEYS)
            if read.is_plain:
                pipeline.eval(READ, 3, history, met, beyond, self._max_length)
            else:
                pipeline.lrange(history, -self._max_length, -1)
            if read.seen is not None and not read.is_plain:
                pipeline.zrangebyscore(met, read.seen.since, "+inf")
            if read.cap is not None:
                pipeline.hgetall(shown)
        replies = await pipeline.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, RedisError) and not isinstance(reply, ResponseError):
                raise reply  # a Cluster's pipeline does not raise it, unlike that of one server
            if not isinstance(reply, list | dict | ResponseError):
                raise InvalidResponse("neither a list, as a history must be, nor a hash")
        remaining = iter(replies)
        return [_of_one_read(read, [*islice(remaining, read.size)]) for read in batch]

    def _resolve(self, read: "_PendingRead", reply: list[Any] | Exception) -> None:
        if read.replies.done():
            return  # the caller was cancelled
        if isinstance(reply, ResponseError):
            self._redis.record_failure("read", reply)
        if isinstance(reply, RedisError | HistoryUnavailableError):
            read.replies.set_exception(HistoryUnavailableError(UNAVAILABLE))
        elif isinstance(reply, Exception):
            read.replies.set_exception(reply)
        else:
            read.replies.set_result(reply)


@dataclass(frozen=True, slots=True)
class _PendingRead:
    """replies: the history; the members of the sorted set, and the hash, if they are wanted."""

    user_id: str
    seen: SeenItems | None
    cap: ShownCap | None
    replies: asyncio.Future[list[Any]]

    @property
    def is_plain(self) -> bool:
        """Whether one script reads both history and members."""
        return self.seen == ALL_SEEN

    @property
    def size(self) -> int:
        """Number of commands."""
        members_apart = self.seen is not None and not self.is_plain
        return 1 + members_apart + (self.cap is not None)


def _of_one_read(read: _PendingRead, replies: list[Any]) -> list[Any] | ResponseError:
    """History, members and hash as they are wanted, or the first error among the replies."""
    for reply in replies:
        if isinstance(reply, ResponseError):
            return reply
    return [*replies[0], *replies[1:]] if read.is_plain else replies

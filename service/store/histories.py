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

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from redis.exceptions import InvalidResponse

from service.settings import Settings
from service.store.events import FORGET, Event
from service.store.history_reads import BatchedReads, Wanted, aligned
from service.store.history_scripts import APPEND
from service.store.history_scripts import FORGET as FORGET_USER
from service.store.keys import PARTITIONS
from service.store.redis_client import ResilientRedis
from service.store.redis_url import Client
from service.store.seen_items import SeenItems
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
_APPEND_COUNTS = 4  # in the script's reply
_MAX_EVENTS = 100  # in one round trip: they block the server for a few milliseconds


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
    order. times: of the history's events, in Unix seconds, NaN where unknown; if asked for."""

    history: list[str]
    seen: list[str]
    shown: list[str]
    times: list[float] | None = None


class HistoryStore:
    """Each method raises HistoryUnavailableError, after the timeout at most."""

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
        self._reads = BatchedReads(redis, self._max_length)

    async def read(self, user_id: str) -> list[str]:
        """The user's newest items, newest last; none for an unknown user."""
        return (await self.read_user(user_id)).history

    async def read_user(
        self,
        user_id: str,
        seen: SeenItems | None = None,
        cap: ShownCap | None = None,
        with_times: bool = False,
    ) -> StoredUser:
        """The history, and what else is wanted, in the same round trip.

        seen: of ALL_SEEN, those that the history has may be left out.
        """
        reply = await self._reads.read(Wanted(user_id, seen, cap, with_times))
        history = [item.decode("utf-8", "replace") for item in reply.items]
        return StoredUser(
            history,
            [] if seen is None else seen.items(reply.members),
            [] if cap is None else cap.reached(reply.shown),
            aligned(reply.times, len(history)) if with_times else None,
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

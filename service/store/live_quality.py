"""What became of the answers, by variant and interest, in Redis.

A run is what is observed together: the answers of one live release, or those of a canary and of the
live release beside it. A user is observed from the first answer of a run on, for a window of time,
and by the same run not again for some days. A hit is the first event in that window on an item of
the answer that it names by its impression, or else of the user's latest one. The users who were
first answered in the same period, as long as the window, are counted together: they are known
completely once the window of the last of them has ended.

Keys; RUN is the name of a run, {N} the partition of the user:

re4:{N}:observed:USER hash run -> note of the user's observation, see service.store.quality_scripts;
                      until the user is observed again
re4:{N}:answers:USER  list of the user's newest answers, newest first, while one is observed: JSON
                      {"impression", "runs", "variant", "items": {item: interest}}; for one window
re4:{run}:quality:RUN hash variant:period:users and variant:period:INTEREST -> count of users
re4:{run}:answers:RUN hash variant -> count of answers
re4:{run}:shown:RUN:VARIANT  HyperLogLog of the items in answers
re4:{run}:verdict:RUN set once the run was aborted

Answers and events are gathered for a moment and written together: a round trip costs the process
more than what it carries. An event waits for a moment longer, so that the answer before it, which
another process may have given, is written first.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import orjson

from service.errors import HistoryUnavailableError
from service.store.events import Event
from service.store.quality_scripts import RECORD_ANSWER, RECORD_EVENTS
from service.store.redis_client import ResilientRedis
from service.store.redis_url import Client
from service.telemetry.canary_metrics import Variant

VARIANTS: tuple[Variant, Variant] = ("current", "canary")
POPULAR = "popular"  # in place of an interest, for items that none found
CANARY_DAYS = 90  # until a user may be observed again by the run of a canary
_DAY_S = 86_400
_TTL_S = CANARY_DAYS * _DAY_S  # of a run's counts after the last answer
_KEPT_ANSWERS = 10  # of a user, which events may name
_GATHER_S = 0.05
_MAX_PENDING = 2000  # what comes beyond is not counted, so that a slow Redis fills no memory
_MAX_WRITTEN = 100  # in one round trip


@dataclass
class VariantCounts:
    """users: whose window has ended. hits: those with a hit, by the interest that found the item.

    answers: all of them; items: different ones in these, as a HyperLogLog counts them.
    """

    users: int = 0
    hits: dict[str, int] = field(default_factory=dict)
    answers: int = 0
    items: int = 0


class Shown(NamedTuple):
    """An answer to a user. items: item -> the interest that found it.

    runs: by name, the days until the run observes the user again.
    """

    user_id: str
    impression: str
    variant: Variant
    items: Mapping[str, str]
    runs: Mapping[str, float]


class _Pending(NamedTuple):
    user_id: str
    script: str
    arguments: Sequence[Any]
    shown: Shown | None = None


class LiveQuality:
    """Answers and events of all runs. clock: Unix seconds."""

    def __init__(
        self, redis: ResilientRedis, window_hours: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis = redis
        self._window_s = window_hours * 3600
        self._clock = clock
        self._pending: list[_Pending] = []
        self._held: list[_Pending] = []  # events of the moment before
        self._is_writing = False

    def record_answer(self, shown: Shown) -> None:
        """Note, in the background, what a user was shown."""
        now = self._clock()
        content = orjson.dumps(
            {
                "impression": shown.impression,
                "runs": [*shown.runs],
                "variant": shown.variant,
                "items": shown.items,
            }
        )
        window_s = max(1, int(self._window_s))
        arguments: list[Any] = [now, window_s, shown.variant, self._period(now), content]
        arguments.append(_KEPT_ANSWERS)
        for run, days in shown.runs.items():
            arguments += (run, max(window_s, int(days * _DAY_S)))
        self._note(_Pending(shown.user_id, RECORD_ANSWER, arguments, shown))

    def record_events(self, events: Sequence[Event]) -> None:
        """Note, in the background, which users had a hit."""
        named_of: dict[str, list[str]] = defaultdict(list)
        for event in events:
            named_of[event.user_id] += (event.impression_id or "", event.item_id)
        now = self._clock()
        for user_id, named in named_of.items():
            self._note(_Pending(user_id, RECORD_EVENTS, (now, *named)))

    async def forget(self, user_id: str) -> None:
        """Delete the user's answers and observations. Raises HistoryUnavailableError."""
        self._pending = [each for each in self._pending if each.user_id != user_id]
        self._held = [each for each in self._held if each.user_id != user_id]

        async def run(client: Client) -> None:
            await client.delete(*self._keys_of(user_id))

        await self._redis.call("forget", run)

    async def read(self, run: str, days: float) -> dict[Variant, VariantCounts]:
        """The counts of each variant, of users first answered in so many days.

        Raises HistoryUnavailableError.
        """
        of_run = self._redis.keys.of_run

        async def command(client: Client) -> list[Any]:
            counts = await client.hgetall(of_run(run, "quality"))
            answers = await client.hgetall(of_run(run, "answers"))
            # A Cluster's client counts no HyperLogLog in a pipeline.
            shown = [await client.pfcount(of_run(run, f"shown:{name}")) for name in VARIANTS]
            return [counts, answers, *shown]

        users, answers, current, canary = await self._redis.call("quality", command)
        counts: dict[Variant, VariantCounts] = {
            "current": VariantCounts(items=current),
            "canary": VariantCounts(items=canary),
        }
        for variant in VARIANTS:
            counts[variant].answers = int(answers.get(variant.encode(), 0))
        if outdated := self._add_users(counts, users, days):
            await self._redis.call("quality", lambda it: it.hdel(of_run(run, "quality"), *outdated))
        return counts

    async def is_aborted(self, run: str) -> bool:
        """Whether a process has aborted the run. Raises HistoryUnavailableError."""

        async def command(client: Client) -> bool:
            return bool(await client.exists(self._redis.keys.of_run(run, "verdict")))

        return await self._redis.call("quality", command)

    async def abort(self, run: str) -> bool:
        """Let every process end the run; whether this is the first to say so.

        Raises HistoryUnavailableError.
        """

        async def command(client: Client) -> bool:
            key = self._redis.keys.of_run(run, "verdict")
            return bool(await client.set(key, "aborted", nx=True, ex=_TTL_S))

        return await self._redis.call("quality", command)

    def _add_users(
        self, counts: Mapping[Variant, VariantCounts], users: Mapping[bytes, bytes], days: float
    ) -> list[bytes]:
        """Add up the periods that count; returns the names of the fields that are too old."""
        now, outdated = self._clock(), list[bytes]()
        oldest = self._period(now - days * _DAY_S)
        newest = self._period(now) - 2  # the newest whose users' windows have all ended
        for name, value in users.items():
            variant, period, what = name.decode().split(":")
            if int(period) < oldest:
                outdated.append(name)
            elif int(period) <= newest:
                count = counts["canary" if variant == "canary" else "current"]
                if what == "users":
                    count.users += int(value)
                else:
                    count.hits[what] = count.hits.get(what, 0) + int(value)
        return outdated

    def _period(self, at: float) -> int:
        return int(at // self._window_s)

    def _keys_of(self, user_id: str) -> list[str]:
        return [self._redis.keys.of_user(user_id, name) for name in ("observed", "answers")]

    # --- writing what was gathered ---

    def _note(self, pending: _Pending) -> None:
        if len(self._pending) + len(self._held) < _MAX_PENDING:
            self._pending.append(pending)
        if not self._is_writing:
            self._is_writing = True
            self._redis.spawn(self._write_all())

    async def _write_all(self) -> None:
        try:
            while self._pending or self._held:
                await asyncio.sleep(_GATHER_S)
                answers = [each for each in self._pending if each.shown is not None]
                ready = [*self._held, *answers]
                self._held = [each for each in self._pending if each.shown is None]
                self._pending = []
                for first in range(0, len(ready), _MAX_WRITTEN):
                    written = ready[first : first + _MAX_WRITTEN]
                    with suppress(HistoryUnavailableError):  # recorded by ResilientRedis
                        await self._redis.call("quality", partial(self._write, written))
        finally:
            self._is_writing = False

    async def _write(self, written: Sequence[_Pending], client: Client) -> None:
        pipeline = client.pipeline(transaction=False)
        for each in written:
            pipeline.eval(each.script, 2, *self._keys_of(each.user_id), *each.arguments)
        counts: Counter[tuple[str, str, str]] = Counter()  # by run, key of it and field
        for reply in await pipeline.execute():
            texts = [text.decode() for text in reply]
            pairs = zip(texts[::2], texts[1::2], strict=True)
            counts.update((run, "quality", name) for run, name in pairs)
        items: dict[tuple[str, str], set[str]] = defaultdict(set)  # by run and key of it
        for shown in (each.shown for each in written if each.shown is not None):
            for run in shown.runs:
                counts[run, "answers", shown.variant] += 1
                items[run, f"shown:{shown.variant}"].update(shown.items)
        await self._count(counts, items, client)

    async def _count(
        self,
        counts: Mapping[tuple[str, str, str], int],
        items: Mapping[tuple[str, str], set[str]],
        client: Client,
    ) -> None:
        of_run = self._redis.keys.of_run
        pipeline = client.pipeline(transaction=False)
        for (run, name, entry), count in counts.items():
            pipeline.hincrby(of_run(run, name), entry, count)
        for (run, name), shown in items.items():
            if shown:
                pipeline.pfadd(of_run(run, name), *shown)
        for key in {of_run(run, name) for run, name, *_ in (*counts, *items)}:
            pipeline.expire(key, _TTL_S)
        await pipeline.execute()

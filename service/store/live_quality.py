"""What became of the answers while a canary runs, by variant and interest, in Redis.

A user is observed once for each run of a canary, from the first answer on for a window of time. A
hit is the first event on an item of the user's latest answer in that window. The users who were
first answered in the same period, as long as the window, are counted together: they are known
completely once the window of the last of them has ended.

Keys; RUN is the run of the canary, {N} the partition of the user:

re4:{N}:answer:USER   the latest answer, JSON {"run", "items": {item: interest}}; for one window
re4:{N}:observed:USER hash of the user's observation: run, variant, period, until (Unix seconds),
                      and hit once there was one; for the longest run
re4:{N}:quality:RUN   hash variant:period:users and variant:period:INTEREST -> count of users
re4:{run}:shown:RUN:VARIANT  HyperLogLog of the items in answers
re4:{run}:answers:RUN hash variant -> count of answers
re4:{run}:verdict:RUN set once the run was aborted
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from service.errors import HistoryUnavailableError
from service.store.events import Event
from service.store.keys import PARTITIONS
from service.store.redis_client import ResilientRedis
from service.store.redis_url import Client
from service.telemetry.canary_metrics import Variant

VARIANTS: tuple[Variant, Variant] = ("current", "canary")
POPULAR = "popular"  # in place of an interest, for items that none found
_TTL_S = 90 * 86_400  # of a run's counts, and of the note that a user was observed

# KEYS: answer, observed, quality. ARGV: run, variant, period, now, window, answer, ttl.
_RECORD_ANSWER = """
local answer, observed, quality = unpack(KEYS)
local run, variant, period, now, window_s, content, ttl_s = unpack(ARGV)
redis.call('SET', answer, content, 'EX', window_s)
if redis.call('HGET', observed, 'run') ~= run then
  redis.call('DEL', observed)
  redis.call('HSET', observed, 'run', run, 'variant', variant, 'period', period,
    'until', now + window_s)
  redis.call('EXPIRE', observed, ttl_s)
  redis.call('HINCRBY', quality, variant .. ':' .. period .. ':users', 1)
  redis.call('EXPIRE', quality, ttl_s)
end
"""

# KEYS: answer, observed, quality. ARGV: run, now, items of the user's events.
_RECORD_EVENTS = """
local answer, observed, quality = unpack(KEYS)
local user = redis.call('HMGET', observed, 'run', 'variant', 'period', 'until', 'hit')
if user[1] ~= ARGV[1] or user[5] or tonumber(user[4]) < tonumber(ARGV[2]) then
  return
end
local content = redis.call('GET', answer)
local latest = content and cjson.decode(content)
if not latest or latest.run ~= ARGV[1] then
  return
end
for i = 3, #ARGV do
  local interest = latest.items[ARGV[i]]
  if interest then
    redis.call('HSET', observed, 'hit', 1)
    redis.call('HINCRBY', quality, user[2] .. ':' .. user[3] .. ':' .. interest, 1)
    return
  end
end
"""


@dataclass
class VariantCounts:
    """users: whose window has ended. hits: those with a hit, by the interest that found the item.

    answers: all of them; items: different ones in these, as a HyperLogLog counts them.
    """

    users: int = 0
    hits: dict[str, int] = field(default_factory=dict)
    answers: int = 0
    items: int = 0


class LiveQuality:
    """Answers and events of one run at a time. clock: Unix seconds."""

    def __init__(
        self, redis: ResilientRedis, window_hours: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis = redis
        self._window_s = window_hours * 3600
        self._clock = clock

    def record_answer(
        self, run: str, user_id: str, variant: Variant, items: Mapping[str, str]
    ) -> None:
        """Note, in the background, what a user was shown: item -> the interest that found it."""
        self._redis.spawn(self._record_answer(run, user_id, variant, items))

    def record_events(self, run: str, events: Sequence[Event]) -> None:
        """Note, in the background, which users had a hit."""
        self._redis.spawn(self._record_events(run, events))

    async def forget(self, user_id: str) -> None:
        """Delete the user's answer and observation. Raises HistoryUnavailableError."""
        keys = [self._redis.keys.of_user(user_id, name) for name in ("answer", "observed")]

        async def run(client: Client) -> None:
            await client.delete(*keys)

        await self._redis.call("forget", run)

    async def read(self, run: str) -> dict[Variant, VariantCounts]:
        """The counts of each variant. Raises HistoryUnavailableError."""
        keys = self._redis.keys

        async def command(client: Client) -> list[Any]:
            pipeline = client.pipeline(transaction=False)
            for partition in range(PARTITIONS):
                pipeline.hgetall(keys.quality(partition, run))
            pipeline.hgetall(keys.of_run(run, "answers"))
            # A Cluster's client counts no HyperLogLog in a pipeline.
            shown = [await client.pfcount(keys.of_run(run, f"shown:{name}")) for name in VARIANTS]
            return [*await pipeline.execute(), *shown]

        *partitions, answers, current, canary = await self._redis.call("quality", command)
        counts: dict[Variant, VariantCounts] = {
            "current": VariantCounts(items=current),
            "canary": VariantCounts(items=canary),
        }
        for variant in VARIANTS:
            counts[variant].answers = int(answers.get(variant.encode(), 0))
        self._add_users(counts, partitions)
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
        self, counts: Mapping[Variant, VariantCounts], partitions: Sequence[Mapping[bytes, bytes]]
    ) -> None:
        newest = self._period(self._clock()) - 2  # the newest whose users' windows have all ended
        for partition in partitions:
            for name, value in partition.items():
                variant, period, what = name.decode().split(":")
                if int(period) > newest:
                    continue
                count = counts["canary" if variant == "canary" else "current"]
                if what == "users":
                    count.users += int(value)
                else:
                    count.hits[what] = count.hits.get(what, 0) + int(value)

    def _period(self, at: float) -> int:
        return int(at // self._window_s)

    def _keys_of(self, user_id: str, run: str) -> list[str]:
        keys = self._redis.keys
        partition = keys.partition_of(user_id)
        names = [keys.of_user(user_id, name) for name in ("answer", "observed")]
        return [*names, keys.quality(partition, run)]

    async def _record_answer(
        self, run: str, user_id: str, variant: Variant, items: Mapping[str, str]
    ) -> None:
        now, keys = self._clock(), self._redis.keys
        window_s = max(1, int(self._window_s))
        content = orjson.dumps({"run": run, "items": items})
        arguments = (run, variant, self._period(now), now, window_s, content, _TTL_S)

        async def command(client: Client) -> None:
            pipeline = client.pipeline(transaction=False)
            pipeline.eval(_RECORD_ANSWER, 3, *self._keys_of(user_id, run), *arguments)
            pipeline.hincrby(keys.of_run(run, "answers"), variant, 1)
            pipeline.expire(keys.of_run(run, "answers"), _TTL_S)
            if items:
                pipeline.pfadd(keys.of_run(run, f"shown:{variant}"), *items)
                pipeline.expire(keys.of_run(run, f"shown:{variant}"), _TTL_S)
            await pipeline.execute()

        with suppress(HistoryUnavailableError):  # recorded by ResilientRedis
            await self._redis.call("quality", command)

    async def _record_events(self, run: str, events: Sequence[Event]) -> None:
        items_of: dict[str, list[str]] = defaultdict(list)
        for event in events:
            items_of[event.user_id].append(event.item_id)
        now = self._clock()

        async def command(client: Client) -> None:
            pipeline = client.pipeline(transaction=False)
            for user, items in items_of.items():
                pipeline.eval(_RECORD_EVENTS, 3, *self._keys_of(user, run), run, now, *items)
            await pipeline.execute()

        with suppress(HistoryUnavailableError):  # recorded by ResilientRedis
            await self._redis.call("quality", command)

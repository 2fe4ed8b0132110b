"""Reads of users' histories, many in one round trip to Redis."""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from redis.exceptions import InvalidResponse, RedisError, ResponseError

from service.errors import HistoryUnavailableError
from service.store.history_scripts import READ
from service.store.redis_client import UNAVAILABLE, ResilientRedis
from service.store.redis_url import Client
from service.store.seen_items import ALL_SEEN, SeenItems
from service.store.shown_items import ShownCap

_KEYS = ("history", "met", "beyond", "times")
_MAX_READS = 64  # in one round trip
# Shares of the timeout. A read that has waited for the first share behind another round trip starts
# its own: one after the other, the two could take twice the timeout. A round trip may take the
# second share; what remains is for timers, which are late.
_MAX_QUEUE_SHARE, _ROUND_TRIP_SHARE = 0.1, 0.85


class Reply(NamedTuple):
    """As Redis has it: the history, members of the sorted set of what was met, the hash of what was
    shown, and the times. What is not wanted is empty."""

    items: list[bytes]
    members: list[bytes]
    shown: dict[bytes, bytes]
    times: list[bytes]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be read of a user, beside the history."""

    user_id: str
    seen: SeenItems | None
    cap: ShownCap | None
    with_times: bool

    @property
    def is_plain(self) -> bool:
        """Whether all that the user met is wanted."""
        return self.seen == ALL_SEEN

    @property
    def by_script(self) -> bool:
        """Whether a script reads the history: what it reads with it is of the same moment."""
        return self.is_plain or self.with_times

    @property
    def members_apart(self) -> bool:
        return self.seen is not None and not self.is_plain

    @property
    def size(self) -> int:
        """Number of commands."""
        return 1 + self.members_apart + (self.cap is not None)


class _Pending(NamedTuple):
    wanted: Wanted
    reply: asyncio.Future[Reply]


class BatchedReads:
    """Reads that arrive during a round trip go to Redis together in the next: a third of the
    work."""

    def __init__(self, redis: ResilientRedis, max_length: int) -> None:
        self._redis, self._max_length = redis, max_length
        self._pending: deque[_Pending] = deque()
        self._readers = 0

    async def read(self, wanted: Wanted) -> Reply:
        """Raises HistoryUnavailableError, after the timeout at most."""
        self._redis.admit()
        loop = asyncio.get_running_loop()
        pending = _Pending(wanted, loop.create_future())
        self._pending.append(pending)
        if not self._readers:
            self._start_reader()
        elif len(self._pending) == 1:
            loop.call_later(_MAX_QUEUE_SHARE * self._redis.timeout_s, self._start_another_reader)
        return await pending.reply

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
        replies: Sequence[Reply | Exception]
        try:
            replies = await self._redis.call(
                "read",
                partial(self._read_batch, [pending.wanted for pending in batch]),
                attempts=2,
                timeout_s=_ROUND_TRIP_SHARE * self._redis.timeout_s,
            )
        except (Exception, asyncio.CancelledError) as error:  # so that no caller waits for ever
            cause = error if isinstance(error, Exception) else HistoryUnavailableError(UNAVAILABLE)
            replies = [cause] * len(batch)
        for pending, reply in zip(batch, replies, strict=True):
            self._resolve(pending.reply, reply)

    async def _read_batch(
        self, batch: Sequence[Wanted], client: Client
    ) -> list[Reply | ResponseError]:
        """The reply to each read, or its error."""
        pipeline, keys_of = client.pipeline(transaction=False), self._redis.keys.of_user
        for wanted in batch:
            keys = [keys_of(wanted.user_id, name) for name in _KEYS]
            if wanted.by_script:
                flags = int(wanted.is_plain), int(wanted.with_times)
                pipeline.eval(READ, len(keys), *keys, self._max_length, *flags)
            else:
                pipeline.lrange(keys[0], -self._max_length, -1)
            if wanted.members_apart:
                assert wanted.seen is not None
                pipeline.zrangebyscore(keys[1], wanted.seen.since, "+inf")
            if wanted.cap is not None:
                pipeline.hgetall(keys_of(wanted.user_id, "shown"))
        replies = await pipeline.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, RedisError) and not isinstance(reply, ResponseError):
                raise reply  # a Cluster's pipeline does not raise it, unlike that of one server
            if not isinstance(reply, list | dict | ResponseError):
                raise InvalidResponse("neither a list, as a history must be, nor a hash")
        remaining = iter(replies)
        return [_of_one_read(wanted, [*islice(remaining, wanted.size)]) for wanted in batch]

    def _resolve(self, waiting: asyncio.Future[Reply], reply: Reply | Exception) -> None:
        if waiting.done():
            return  # the caller was cancelled
        if isinstance(reply, ResponseError):
            self._redis.record_failure("read", reply)
        if isinstance(reply, RedisError | HistoryUnavailableError):
            waiting.set_exception(HistoryUnavailableError(UNAVAILABLE))
        elif isinstance(reply, Exception):
            waiting.set_exception(reply)
        else:
            waiting.set_result(reply)


def _of_one_read(wanted: Wanted, replies: list[Any]) -> Reply | ResponseError:
    """What was read, or the first error among the replies."""
    for reply in replies:
        if isinstance(reply, ResponseError):
            return reply
    items, members, times = replies[0] if wanted.by_script else (replies[0], [], [])
    if wanted.members_apart:
        members = replies[1]
    return Reply(items, members, replies[-1] if wanted.cap is not None else {}, times)


def aligned(times: Sequence[bytes], count: int) -> list[float]:
    """The times of `count` events, newest last; NaN for 0, and for the oldest without one."""
    known = [float(moment) or math.nan for moment in times[max(len(times) - count, 0) :]]
    return [math.nan] * (count - len(known)) + known

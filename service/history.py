"""Recent histories and the event stream, in Redis; and what is done when Redis does not answer.

re4:history:<user>   list of item ids, newest last, capped
re4:events           stream of every event, capped: user_id, item_id, timestamp, and event and
                     event_id where given
"""

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError, ResponseError

from service.breaker import Breaker
from service.embedded import EmbeddedRedis, EmbeddedRedisError
from service.errors import HistoryUnavailableError
from service.metrics import Metrics
from service.schemas.histories import Event
from service.settings import Settings

HISTORY = "re4:history:"
EVENTS = "re4:events"

_CONNECTIONS = 16
_READS = 64  # histories in one round trip
_EVENTS = 100  # in one transaction: a few milliseconds of work, within which nothing else is done
# The client's own time-outs, in budgets. They only end what nobody waits for any more: a caller has
# the budget, but they would also count time in which this process did not look at its sockets.
_PATIENCE = 3

_UNAVAILABLE = "history: Redis does not answer, or refuses; try again later"

T = TypeVar("T")
Command = Callable[[Redis], Awaitable[T]]
log = logging.getLogger(__name__)


class Server(Protocol):
    """Where a Redis is."""

    def pool(self, **options: Any) -> BlockingConnectionPool:
        """Connections to it, of which none is made yet."""
        ...

    async def revive(self) -> None:
        """Do what can be done for it to answer again. Raises EmbeddedRedisError."""
        ...

    async def close(self) -> None: ...


class RemoteServer:
    """A Redis that somebody else runs, at a URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def pool(self, **options: Any) -> BlockingConnectionPool:
        return BlockingConnectionPool.from_url(self._url, **options)

    async def revive(self) -> None:
        pass

    async def close(self) -> None:
        pass


class OwnServer:
    """A Redis that runs as long as the service does, and is started again should it end."""

    def __init__(self, redis: EmbeddedRedis) -> None:
        self._redis = redis
        self._reviving = asyncio.Lock()

    def pool(self, **options: Any) -> BlockingConnectionPool:
        return BlockingConnectionPool(
            connection_class=UnixDomainSocketConnection, path=str(self._redis.socket), **options
        )

    async def revive(self) -> None:
        async with self._reviving:
            await asyncio.to_thread(self._redis.start)

    async def close(self) -> None:
        await asyncio.to_thread(self._redis.stop)


def server_of(settings: Settings) -> Server:
    """The Redis that the settings name. Raises EmbeddedRedisError for a folder it cannot be in."""
    if settings.history:
        return RemoteServer(settings.history.get_secret_value())
    return OwnServer(EmbeddedRedis(settings.history_folder or settings.releases / "history"))


class HistoryStore:
    """Redis within a budget of time: a caller soon has its answer, or HistoryUnavailableError.

    Reads that come while another is under way go to Redis together: one round trip, and a third of
    the work. Whoever asked may go away: what was sent to Redis runs to its end in a task of ours,
    so no connection goes back to the pool with a reply to come, which the next user would be given.
    """

    def __init__(self, server: Server, settings: Settings, metrics: Metrics) -> None:
        self._server = server
        self._items = settings.history_items
        self._stream_length = settings.event_stream_length
        self._budget_s = settings.history_budget_ms / 1000
        self._metrics = metrics
        self._breaker = Breaker(settings.history_failures, settings.history_pause_s)
        self._redis = Redis.from_pool(_pool(server, self._budget_s))
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wanted: deque[_Wanted] = deque()
        self._reading = False
        self.up = False

    async def start(self) -> None:
        """Reach for Redis. That it is down is logged; later calls find it when it is back."""
        try:
            await self._server.revive()
            await self._call("start", lambda redis: redis.ping())
        except EmbeddedRedisError as error:
            self._failed("start", error)
        except HistoryUnavailableError:
            pass  # noted where it happened

    async def close(self) -> None:
        """End what is under way, then the connections, then the server if it is ours."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._redis.aclose()
        await self._server.close()

    async def read(self, user_id: str) -> list[str]:
        """The user's newest items, newest last; none for an unknown user."""
        wanted = _Wanted(user_id, asyncio.get_running_loop().create_future())
        self._wanted.append(wanted)
        if not self._reading:
            self._reading = True
            self._spawn(self._read_on())
        return [item.decode("utf-8", "replace") for item in await wanted.items]

    async def append(self, events: Sequence[Event]) -> None:
        """Add the events to their users' histories and to the stream, some at a time.

        If this raises, the first of them may be there. Nothing is tried again from here: had only
        the reply been lost, it would be there twice.
        """
        for first in range(0, len(events), _EVENTS):
            batch = events[first : first + _EVENTS]
            await self._call("append", partial(self._append_batch, batch))
            self._metrics.events.inc(len(batch))

    async def _append_batch(self, events: Sequence[Event], redis: Redis) -> None:
        pipeline = redis.pipeline(transaction=True)
        now = time.time()
        items = defaultdict(list)
        for event in events:
            fields = {"timestamp": now} | event.model_dump(exclude_none=True)
            pipeline.xadd(EVENTS, fields, maxlen=self._stream_length, approximate=True)
            items[HISTORY + event.user_id].append(event.item_id)
        for key, new in items.items():
            pipeline.rpush(key, *new)
            pipeline.ltrim(key, -self._items, -1)
        await pipeline.execute()

    # --- reading together ---

    async def _read_on(self) -> None:
        """Read what is wanted, in batches, until nothing is."""
        while self._wanted:
            batch = [self._wanted.popleft() for _ in range(min(len(self._wanted), _READS))]
            try:
                replies = await self._call("read", partial(self._read_batch, batch), attempts=2)
            except Exception as error:  # whatever it is, somebody waits to be told
                replies = [error] * len(batch)
            for wanted, reply in zip(batch, replies, strict=True):
                self._hand_over(wanted, reply)
        self._reading = False

    async def _read_batch(self, batch: Sequence["_Wanted"], redis: Redis) -> list[Any]:
        pipeline = redis.pipeline(transaction=False)
        for wanted in batch:
            pipeline.lrange(HISTORY + wanted.user_id, -self._items, -1)
        return await pipeline.execute(raise_on_error=False)

    def _hand_over(self, wanted: "_Wanted", reply: list[bytes] | Exception) -> None:
        if wanted.items.done():
            return  # whoever wanted it has gone
        if isinstance(reply, ResponseError):
            self._failed("read", reply)
        if isinstance(reply, RedisError | HistoryUnavailableError):
            wanted.items.set_exception(HistoryUnavailableError(_UNAVAILABLE))
        elif isinstance(reply, Exception):
            wanted.items.set_exception(reply)
        else:
            wanted.items.set_result(reply)

    # --- calling Redis ---

    async def _call(self, operation: str, command: Command[T], attempts: int = 1) -> T:
        if not self._breaker.admits():
            raise HistoryUnavailableError(_UNAVAILABLE)
        try:
            result = await self._within_budget(self._spawn(self._attempt(command, attempts)))
        except (RedisError, OSError, TimeoutError, EmbeddedRedisError) as error:
            self._failed(operation, error)
            raise HistoryUnavailableError(_UNAVAILABLE) from error
        self._breaker.succeeded()
        if not self.up:
            log.info("history store answers")
        self._set_up(True)
        return result

    async def _within_budget(self, call: "asyncio.Task[T]") -> T:
        """What the call gives; it goes on when this is cancelled or raises TimeoutError."""
        for _ in range(2):
            start = time.perf_counter()
            done, _pending = await asyncio.wait((call,), timeout=self._budget_s)
            if done:
                return call.result()
            if time.perf_counter() - start < 1.5 * self._budget_s:
                break
            # So late a time-out shows that not Redis but this process was held up, perhaps by the
            # loading of a release: the reply may be here and only has to be looked at.
        raise TimeoutError

    async def _attempt(self, command: Command[T], attempts: int) -> T:
        try:
            return await command(self._redis)
        except ConnectionError:
            await self._server.revive()
            if attempts == 1:
                raise
        return await self._attempt(command, attempts - 1)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # asked for, as asyncio logs those of which nobody has

    def _failed(self, operation: str, error: Exception) -> None:
        name = type(error).__name__
        self._metrics.history_failures.labels(operation, name).inc()
        if isinstance(error, ResponseError):
            return  # Redis is there: it only refuses this, as a full one does, or for a spoilt key
        self._breaker.failed()
        if self.up or operation == "start":
            log.warning("history store fails", extra={"operation": operation, "error": name})
        self._set_up(False)

    def _set_up(self, up: bool) -> None:
        self.up = up
        self._metrics.history_up.set(up)


@dataclass(frozen=True, slots=True)
class _Wanted:
    user_id: str
    items: asyncio.Future[list[bytes]]


def _pool(server: Server, budget_s: float) -> BlockingConnectionPool:
    timeout_s = _PATIENCE * budget_s
    return server.pool(
        max_connections=_CONNECTIONS,
        timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        socket_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        protocol=2,  # with 3 the client asks for notices that may stretch its time-outs
    )

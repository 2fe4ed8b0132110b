"""The link to Redis: every call has a budget of time, and what keeps failing is left alone."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from redis.asyncio import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ConnectionError,
    InvalidResponse,
    OutOfMemoryError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,
)

from service.errors import HistoryUnavailableError
from service.settings import Settings
from service.store.circuit_breaker import Breaker
from service.store.embedded_redis import EmbeddedRedisError
from service.store.redis_url import Address, Client
from service.telemetry.metrics import Metrics

UNAVAILABLE = "history: Redis does not answer, or refuses; try again later"

_CALLS = 16  # at once
# The client's own time-outs, in budgets. They only end what nobody waits for any more: a caller has
# the budget, but they would also count time in which this process did not look at its sockets.
_PATIENCE = 3
# In budgets: when a time-out is late, and how long to look for what may have come meanwhile.
_LATE, _LOOK = 1.5, 0.2
_TOLD_EVERY_S = 60.0  # that Redis refuses, in the log

_FAILURES = (RedisError, RedisClusterException, OSError, EmbeddedRedisError)

T = TypeVar("T")
Command = Callable[[Client], Awaitable[T]]
log = logging.getLogger(__name__)


class ResilientRedis:
    """Redis within a budget of time: a caller soon has its answer, or HistoryUnavailableError.

    Whoever asked may go away: what was sent to Redis runs to its end in a task of ours, so no
    connection is used again with a reply to come, which the next user would be given.

    While Redis is left alone nobody waits for it, not even to find out whether it is back: that is
    tried aside.
    """

    def __init__(self, address: Address, settings: Settings, metrics: Metrics) -> None:
        self.budget_s = settings.redis_timeout_ms / 1000
        self.up = False
        self._address = address
        self._metrics = metrics
        self._breaker = Breaker(settings.breaker_threshold, settings.breaker_cooldown_s)
        self._client = address.client(**_options(_PATIENCE * self.budget_s))
        self._calls = asyncio.Semaphore(_CALLS)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._tells_refusals_at = 0.0

    async def start(self) -> None:
        """Reach for Redis. That it is down is logged; later calls find it when it is back."""
        try:
            await self._address.revive(self._client)
        except _FAILURES as error:
            self.failed("start", error)
        else:
            await self._try("start")

    async def close(self) -> None:
        """End what is under way, then the connections, then the server if it is ours."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._address.close(self._client)

    @property
    def circuit_open(self) -> bool:
        """Whether Redis has failed so often that it is not asked for now."""
        return self._breaker.open

    def admit(self) -> None:
        """Raises HistoryUnavailableError while Redis is left alone."""
        if self._breaker.open:
            if self._breaker.admits():
                self.spawn(self._try("trial"))
            raise HistoryUnavailableError(UNAVAILABLE)

    async def call(
        self,
        operation: str,
        command: Command[T],
        attempts: int = 1,
        budget_s: float | None = None,
    ) -> T:
        """What the command gives. attempts: how often a connection may break before that is told.

        Raises HistoryUnavailableError. Then it may still be done, or may have been.
        """
        self.admit()
        return await self._call(operation, command, attempts, budget_s or self.budget_s)

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """A task that runs to its end, whoever waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def failed(self, operation: str, error: Exception) -> None:
        """Note it: in the metrics, in the log if it is news, and for the breaker."""
        name = _name(error)
        self._metrics.history_failures.labels(operation, name).inc()
        if isinstance(error, ResponseError):
            # Redis is there: it only refuses this, as a full one does, or for a spoilt key.
            if (now := time.monotonic()) >= self._tells_refusals_at:
                self._tells_refusals_at = now + _TOLD_EVERY_S
                log.warning("history store refuses", extra={"operation": operation, "error": name})
            return
        self._breaker.failed()
        if self.up or operation == "start":
            log.warning("history store fails", extra={"operation": operation, "error": name})
        self._set_up(False)

    async def _try(self, operation: str) -> None:
        with suppress(HistoryUnavailableError):  # noted where it happened
            await self._call(operation, _ping, 1, self.budget_s)

    async def _call(self, operation: str, command: Command[T], attempts: int, budget_s: float) -> T:
        attempt = self.spawn(self._attempt(command, attempts))
        try:
            result = await self._within(budget_s, attempt)
        except Exception as error:  # also what the client does not foresee of a connection
            self.failed(operation, error)
            raise HistoryUnavailableError(UNAVAILABLE) from error
        self._breaker.succeeded()
        if not self.up:
            log.info("history store answers")
        self._set_up(True)
        return result

    async def _within(self, budget_s: float, call: "asyncio.Task[T]") -> T:
        """What the call gives; it goes on when this is cancelled or raises TimeoutError."""
        start = time.perf_counter()
        done, _pending = await asyncio.wait((call,), timeout=budget_s)
        if not done and time.perf_counter() - start > _LATE * budget_s:
            # So late a time-out shows that not Redis but this process was held up, perhaps by the
            # loading of a release: the reply may be here and only has to be looked at.
            done, _pending = await asyncio.wait((call,), timeout=_LOOK * budget_s)
        if not done:
            raise TimeoutError
        return call.result()

    async def _attempt(self, command: Command[T], attempts: int) -> T:
        try:
            async with self._calls:
                return await command(self._client)
        except (ConnectionError, TimeoutError, RuntimeError) as error:
            # RuntimeError: uvloop's word for a connection that has been closed.
            await self._address.revive(self._client)
            if attempts == 1 or isinstance(error, TimeoutError):
                raise
        except InvalidResponse:
            # What was read was the reply to something else: no connection is to be trusted.
            await self._client.aclose()
            raise
        return await self._attempt(command, attempts - 1)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # asked for, as asyncio logs those of which nobody has

    def _set_up(self, up: bool) -> None:
        self.up = up
        self._metrics.history_up.set(up)


async def _ping(client: Client) -> None:
    """Of all parts, if there are several."""
    if isinstance(client, RedisCluster):
        await client.ping(target_nodes=RedisCluster.PRIMARIES)
    else:
        await client.ping()


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "max_connections": 2 * _CALLS,  # as many again to find out where to send the calls
        "socket_connect_timeout": timeout_s,
        "socket_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # with 3 the client asks for notices that may stretch its time-outs
    }


def _name(error: Exception) -> str:
    """The client's name of the error, also of one that comes out of a script."""
    if isinstance(error, ResponseError) and "OOM command" in str(error):
        return OutOfMemoryError.__name__
    return type(error).__name__

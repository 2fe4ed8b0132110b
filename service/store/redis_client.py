"""Calls of Redis with a timeout each, and a circuit breaker that stops them while they fail."""

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
    RedisClusterException,
    RedisError,
    TimeoutError,
)

from service.errors import HistoryUnavailableError
from service.settings import Settings, SetupError, StoreSettings
from service.store.circuit_breaker import CircuitBreaker
from service.store.embedded_redis import EmbeddedRedisError
from service.store.eviction import EvictionPolicy
from service.store.keys import Keys
from service.store.ownership import ForeignDataError, Ownership
from service.store.redis_health import RedisHealth
from service.store.redis_url import Client, Deployment, redis_at
from service.telemetry.metrics import Metrics

UNAVAILABLE = "history: Redis does not answer, or refuses; try again later"

_MAX_CONCURRENT_CALLS = 16
# The client's own socket timeouts, as a multiple of the call timeout. They only end calls that
# nobody awaits any more. A caller waits no longer than the call timeout; a socket timeout would
# also count time in which this process did not read its sockets.
_SOCKET_TIMEOUT_FACTOR = 3
# As multiples of the timeout: when a timer counts as late, and how long to wait then for a reply
# that may have arrived meanwhile.
_LATE_FACTOR, _GRACE_FACTOR = 1.5, 0.2
_PROBE_INTERVAL_S = 5.0
_PROBE_TTL_S = 60

_FAILURES = (RedisError, RedisClusterException, OSError, EmbeddedRedisError)

T = TypeVar("T")
Command = Callable[[Client], Awaitable[T]]
log = logging.getLogger(__name__)


def deployment_of(settings: StoreSettings) -> Deployment:
    """The Redis that the settings name.

    Raises SetupError for a URL that cannot be parsed, EmbeddedRedisError for a folder that cannot
    hold an embedded Redis.
    """
    url, password = settings.redis_url, settings.redis_password
    try:
        return redis_at(
            url.get_secret_value() if url else None,
            password.get_secret_value() if password else None,
            settings.embedded_redis_folder or settings.releases / "history",
        )
    except ValueError as error:
        raise SetupError(f"--redis-url: {error}") from None


class ResilientRedis:
    """Redis with a time limit: a caller soon has its result, or HistoryUnavailableError.

    A caller may be cancelled. A command that was sent still runs to its end in a task of its own,
    so that no connection is reused with a reply outstanding, which the next caller would read.

    While the circuit is open no caller waits for Redis: trial calls run in the background.
    """

    def __init__(self, deployment: Deployment, settings: Settings, metrics: Metrics) -> None:
        self.timeout_s = settings.redis_timeout_ms / 1000
        self.keys = Keys(settings.redis_prefix)
        self._deployment = deployment
        self._metrics = metrics
        self._health = RedisHealth(metrics)
        self._ownership = Ownership(settings, settings.releases)
        self._is_own = False
        self._eviction = EvictionPolicy(metrics)
        self._breaker = CircuitBreaker(settings.breaker_threshold, settings.breaker_cooldown_s)
        self._client = deployment.client(**_options(_SOCKET_TIMEOUT_FACTOR * self.timeout_s))
        self._slots = asyncio.Semaphore(_MAX_CONCURRENT_CALLS)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Connect to Redis. If it is down, that is logged; later calls find it once it is up.

        Raises SetupError if it holds the data of another root.
        """
        try:
            await self._deployment.recover(self._client)
        except _FAILURES as error:
            self.record_failure("start", error)
        else:
            await self._try("start", _ping)
            await self._try("policy", self._eviction.check)

    async def watch(self) -> None:
        """Try to write now and then, for ever, so that a Redis that only answers is noticed."""
        while True:
            with suppress(HistoryUnavailableError):  # recorded
                await self.call("write", self._probe)
                await self.call("policy", self._eviction.check)
            await asyncio.sleep(_PROBE_INTERVAL_S)

    async def close(self) -> None:
        """Finish the calls under way, then close the connections, then an embedded server."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._deployment.close(self._client)

    @property
    def up(self) -> bool:
        """Whether the last call was answered."""
        return self._health.up

    @property
    def failing(self) -> dict[str, str]:
        """Operation -> why it fails now, in words without secrets."""
        return self._health.failing

    @property
    def circuit_open(self) -> bool:
        """Whether Redis has failed so often that calls are refused for now."""
        return self._breaker.is_open

    def admit(self) -> None:
        """Raises HistoryUnavailableError while the circuit is open."""
        if self._breaker.is_open:
            if self._breaker.admits():
                self.spawn(self._try("trial", _ping))
            raise HistoryUnavailableError(UNAVAILABLE)

    async def call(
        self,
        operation: str,
        command: Command[T],
        attempts: int = 1,
        timeout_s: float | None = None,
    ) -> T:
        """The result of the command. attempts: tries while the connection breaks.

        Raises HistoryUnavailableError. The command may have been executed, or may be later.
        """
        self.admit()
        return await self._call(operation, command, attempts, timeout_s or self.timeout_s)

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """A task that runs to its end even if the caller is cancelled."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._discard)
        return task

    def record_failure(self, operation: str, error: Exception) -> None:
        """Count it, log it if the state changes, and tell the circuit breaker."""
        if self._health.record_failure(operation, error):
            self._breaker.record_failure()
            self._is_own = False  # it may be another server that answers next

    async def _try(self, operation: str, command: Command[Any]) -> None:
        """Raises SetupError if Redis holds the data of another root."""
        try:
            await self._call(operation, command, 1, self.timeout_s)
        except HistoryUnavailableError as error:  # recorded
            if isinstance(error.__cause__, ForeignDataError) and operation == "start":
                await self.close()
                raise SetupError(str(error.__cause__)) from None

    async def _probe(self, client: Client) -> None:
        await client.set(self.keys.probe, 1, ex=_PROBE_TTL_S)

    async def _call(
        self, operation: str, command: Command[T], attempts: int, timeout_s: float
    ) -> T:
        attempt = self.spawn(self._attempt(command, attempts))
        try:
            result = await self._wait_for(attempt, timeout_s)
        except Exception as error:  # also errors of a connection that the client does not expect
            self.record_failure(operation, error)
            raise HistoryUnavailableError(UNAVAILABLE) from error
        self._breaker.record_success()
        self._health.record_success(operation)
        return result

    async def _wait_for(self, call: "asyncio.Task[T]", timeout_s: float) -> T:
        """The result; the call goes on if this is cancelled or raises TimeoutError."""
        start = time.perf_counter()
        done, _pending = await asyncio.wait((call,), timeout=timeout_s)
        if not done and time.perf_counter() - start > _LATE_FACTOR * timeout_s:
            # The timer is so late that not Redis but this process was blocked, perhaps by loading
            # a release. The reply may have arrived and only has to be read.
            done, _pending = await asyncio.wait((call,), timeout=_GRACE_FACTOR * timeout_s)
        if not done:
            raise TimeoutError
        if call.cancelled():  # not by the caller: to it this is a failed call
            raise ConnectionError("the call was cancelled")
        return call.result()

    async def _attempt(self, command: Command[T], attempts: int) -> T:
        try:
            async with self._slots:
                if not self._is_own:
                    await self._ownership.check(self._client)
                    self._is_own = True
                return await command(self._client)
        except (ConnectionError, TimeoutError, RuntimeError) as error:
            # uvloop raises RuntimeError for a connection that has been closed.
            await self._deployment.recover(self._client)
            if attempts == 1 or isinstance(error, TimeoutError):
                raise
        except InvalidResponse:
            # The reply belongs to another command: no connection can be trusted.
            await self._client.aclose()
            raise
        return await self._attempt(command, attempts - 1)

    def _discard(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None or isinstance(
            error, (*_FAILURES, ForeignDataError, HistoryUnavailableError)
        ):
            return
        # Nobody may be waiting for this task: unexpected errors are counted and logged here.
        self._metrics.task_failures["redis"].inc()
        log.error("background task failed", extra={"task": "redis"}, exc_info=error)


async def _ping(client: Client) -> None:
    """Ping every master."""
    if isinstance(client, RedisCluster):
        await client.ping(target_nodes=RedisCluster.PRIMARIES)
    else:
        await client.ping()


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "max_connections": 2 * _MAX_CONCURRENT_CALLS,  # the other half for Sentinels and discovery
        "socket_connect_timeout": timeout_s,
        "socket_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
        "protocol": 2,  # with 3 the client asks for notifications that may extend its timeouts
    }

"""The counts of a canary's run, on one server and in a Cluster; nothing fails without Redis."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from service.errors import HistoryUnavailableError
from service.settings import Settings
from service.store.events import Event
from service.store.live_quality import LiveQuality, VariantCounts
from service.store.redis_client import ResilientRedis, deployment_of
from service.telemetry.metrics import Metrics
from tests.evidence.redis_servers import ClusterServers, RedisServer
from tests.service.application import Clock

pytestmark = pytest.mark.anyio

HOUR_S = 3600.0
USERS = [f"user-{number}" for number in range(30)]


@pytest.fixture(params=["server", "cluster"])
def url(request: pytest.FixtureRequest, short_path: Path) -> Iterator[str]:
    if request.param == "server":
        tcp: RedisServer = request.getfixturevalue("tcp")
        yield f"redis://127.0.0.1:{tcp.port}"
        return
    with ClusterServers(short_path).running() as servers:
        yield servers.url


@pytest.fixture
async def redis(url: str, settings: Callable[..., Settings]) -> AsyncIterator[ResilientRedis]:
    given = settings(redis_url=url)
    redis = ResilientRedis(deployment_of(given), given, Metrics())
    await redis.start()
    yield redis
    await redis.close()


async def settled(redis: ResilientRedis) -> None:
    for task in [*redis._tasks]:
        await task


async def test_users_of_all_partitions_are_counted(redis: ResilientRedis) -> None:
    clock = Clock(1.8e9)
    quality = LiveQuality(redis, 1.0, clock)
    for user in USERS:
        quality.record_answer("run", user, "canary", {"item-1": "2", "item-2": "popular"})
    await settled(redis)
    quality.record_events("run", [Event(user_id=user, item_id="item-2") for user in USERS[:10]])
    quality.record_events("another", [Event(user_id=user, item_id="item-1") for user in USERS])
    await settled(redis)
    clock.now += 2 * HOUR_S
    counts = await quality.read("run")
    assert counts["canary"] == VariantCounts(30, {"popular": 10}, 30, 2)
    assert counts["current"] == VariantCounts()
    await quality.forget(USERS[0])
    assert not await quality.is_aborted("run")
    assert await quality.abort("run")
    assert await quality.is_aborted("run")
    assert not await quality.is_aborted("another")


async def test_without_redis_answers_and_events_are_not_counted_and_nothing_fails(
    tcp: RedisServer, settings: Callable[..., Settings]
) -> None:
    given = settings(redis_url=f"redis://127.0.0.1:{tcp.port}", redis_timeout_ms=200)
    redis = ResilientRedis(deployment_of(given), given, Metrics())
    await redis.start()
    tcp.stop()
    quality = LiveQuality(redis, 1.0)
    quality.record_answer("run", "anna", "canary", {"item-1": "0"})
    quality.record_events("run", [Event(user_id="anna", item_id="item-1")])
    await settled(redis)
    with pytest.raises(HistoryUnavailableError):
        await quality.read("run")
    await redis.close()

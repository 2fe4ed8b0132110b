"""The counts of runs, on one server and in a Cluster; nothing fails without Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from service.errors import HistoryUnavailableError
from service.settings import Settings
from service.store.events import Event
from service.store.live_quality import LiveQuality, Shown, VariantCounts
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


def shown(user: str, impression: str = "first", run: str = "run", days: float = 90) -> Shown:
    return Shown(user, impression, "canary", {"item-1": "2", "item-2": "popular"}, {run: days})


def take(user: str, item: str, impression: str | None = None) -> Event:
    return Event(user_id=user, item_id=item, impression_id=impression)


async def test_users_of_all_partitions_are_counted(redis: ResilientRedis) -> None:
    clock = Clock(1.8e9)
    quality = LiveQuality(redis, 1.0, clock)
    for user in USERS:
        quality.record_answer(shown(user))
    quality.record_events([take(user, "item-2") for user in USERS[:10]])
    quality.record_events([take(user, "item-3") for user in USERS[10:]])
    await settled(redis)
    clock.now += 2 * HOUR_S
    counts = await quality.read("run", 90)
    assert counts["canary"] == VariantCounts(30, {"popular": 10}, 30, 2)
    assert counts["current"] == VariantCounts()
    assert (await quality.read("another", 90))["canary"] == VariantCounts()
    await quality.forget(USERS[0])
    assert not await quality.is_aborted("run")
    assert await quality.abort("run")
    assert await quality.is_aborted("run")
    assert not await quality.is_aborted("another")


async def test_a_user_is_observed_again_after_days_and_old_ones_count_no_more(
    redis: ResilientRedis,
) -> None:
    clock = Clock(1.8e9)
    quality = LiveQuality(redis, 1.0, clock)

    async def users_after(days: float) -> int:
        clock.now += days * 24 * HOUR_S
        quality.record_answer(shown("anna", days=7))
        await settled(redis)
        clock.now += 2 * HOUR_S
        return (await quality.read("run", 7))["canary"].users

    assert [await users_after(days) for days in (0, 3, 3, 1, 8)] == [1, 1, 1, 1, 1]
    assert await redis.call("quality", lambda it: it.hlen(redis.keys.of_run("run", "quality"))) == 1


async def test_an_event_is_a_hit_of_the_answer_that_it_names(redis: ResilientRedis) -> None:
    clock = Clock(1.8e9)
    quality = LiveQuality(redis, 1.0, clock)
    for user in USERS:
        quality.record_answer(shown(user, "old", "of the old release"))
        quality.record_answer(shown(user, "new", "of the new release"))
    quality.record_events([take(USERS[0], "item-1", "old"), take(USERS[0], "item-1", "old")])
    quality.record_events([take(USERS[1], "item-1", "new")])
    quality.record_events([take(USERS[2], "item-1"), take(USERS[3], "item-1", "unknown")])
    await settled(redis)
    clock.now += 2 * HOUR_S
    assert (await quality.read("of the old release", 7))["canary"].hits == {"2": 1}
    assert (await quality.read("of the new release", 7))["canary"].hits == {"2": 2}


async def test_an_event_may_reach_another_process_before_its_answer_is_written(
    redis: ResilientRedis,
) -> None:
    clock = Clock(1.8e9)
    answering, taking = LiveQuality(redis, 1.0, clock), LiveQuality(redis, 1.0, clock)
    taking.record_events([take("ben", "item-1")])  # so that it writes earlier
    await asyncio.sleep(0.01)
    answering.record_answer(shown("anna"))
    taking.record_events([take("anna", "item-1")])
    await settled(redis)
    clock.now += 2 * HOUR_S
    assert (await taking.read("run", 90))["canary"].hits == {"2": 1}


async def test_of_a_user_only_the_newest_answers_are_kept(redis: ResilientRedis) -> None:
    quality = LiveQuality(redis, 1.0)
    for number in range(20):
        quality.record_answer(shown("anna", f"answer-{number}"))
    await settled(redis)
    key = redis.keys.of_user("anna", "answers")
    assert await redis.call("quality", lambda it: it.llen(key)) == 10


async def test_what_waits_is_forgotten_too(redis: ResilientRedis) -> None:
    clock = Clock(1.8e9)
    quality = LiveQuality(redis, 1.0, clock)
    quality.record_answer(shown("anna"))
    await quality.forget("anna")
    await settled(redis)
    clock.now += 2 * HOUR_S
    assert (await quality.read("run", 90))["canary"] == VariantCounts()


async def test_without_redis_answers_and_events_are_not_counted_and_nothing_fails(
    tcp: RedisServer, settings: Callable[..., Settings]
) -> None:
    given = settings(redis_url=f"redis://127.0.0.1:{tcp.port}", redis_timeout_ms=200)
    redis = ResilientRedis(deployment_of(given), given, Metrics())
    await redis.start()
    tcp.stop()
    quality = LiveQuality(redis, 1.0)
    quality.record_answer(shown("anna"))
    quality.record_events([take("anna", "item-1")])
    await settled(redis)
    with pytest.raises(HistoryUnavailableError):
        await quality.read("run", 90)
    await redis.close()

"""A history is in order of the events' time, whatever order they arrive in."""

import random
import time
from collections.abc import Callable, Sequence
from zlib import crc32

import pytest

from service.settings import Settings
from service.store.events import Event
from service.store.histories import Appended
from tests.evidence.redis_servers import RedisServer
from tests.service.history_store import started

pytestmark = pytest.mark.anyio

MakeSettings = Callable[..., Settings]


def at(*times: float, user: str = "anna") -> list[Event]:
    """Items that are named after their time."""
    return [Event(user_id=user, item_id=f"{time:g}", timestamp=time) for time in times]


def key(name: str) -> str:
    return f"re4:{{{crc32(b'anna') % 64}}}:{name}:anna"


@pytest.mark.parametrize("batches", [[[300, 100, 200]], [[300], [100], [200]], [[300, 100], [200]]])
async def test_late_events_go_to_their_place(
    settings: MakeSettings, batches: Sequence[Sequence[float]]
) -> None:
    async with started(settings()) as store:
        for times in batches:
            await store.append(at(*times))
        assert await store.read("anna") == ["100", "200", "300"]


async def test_any_order_of_arrival_gives_the_order_of_time(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    generator = random.Random(7)
    async with started(settings(redis_url=tcp.url, history_max_length=20)) as store:
        times = [float(number) for number in range(1, 51)]
        generator.shuffle(times)
        for first in range(0, 50, 3):
            await store.append(at(*times[first : first + 3]))
        assert await store.read("anna") == [f"{number}" for number in range(31, 51)]
        assert tcp.execute("LLEN", key("times")) == 20


async def test_events_of_one_time_stay_in_order_of_arrival(settings: MakeSettings) -> None:
    async with started(settings()) as store:
        for item in ("a", "b", "c"):
            await store.append([Event(user_id="anna", item_id=item, timestamp=100)])
        await store.append(at(200, 50))
        await store.append([Event(user_id="anna", item_id="d", timestamp=100)])
        assert await store.read("anna") == ["50", "a", "b", "c", "d", "200"]


async def test_an_event_later_than_allowed_is_only_logged(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    async with started(settings(redis_url=tcp.url, allowed_lateness_hours=1)) as store:
        assert await store.append(at(10_000, 6401, 6399)) == Appended(3, 0, 0)
        assert await store.read("anna") == ["6401", "10000"]
        assert tcp.execute("XLEN", f"re4:{{{crc32(b'anna') % 64}}}:events") == 3
        [metric] = store._metrics.late_events.collect()
        assert metric.samples[0].value == 1


async def test_an_event_from_the_future_counts_as_of_its_arrival(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    async with started(settings(redis_url=tcp.url)) as store:
        await store.append(at(4.1e9))
        await store.append([Event(user_id="anna", item_id="now")])
        assert await store.read("anna") == ["4.1e+09", "now"]
        [(_, fields), _] = tcp.execute("XRANGE", f"re4:{{{crc32(b'anna') % 64}}}:events", "-", "+")
        assert float(fields[b"timestamp"]) <= time.time()


async def test_a_history_of_an_earlier_version_stays_before_what_arrives(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    tcp.execute("RPUSH", key("history"), "old 1", "old 2")
    async with started(settings(redis_url=tcp.url)) as store:
        assert await store.read("anna") == ["old 1", "old 2"]
        await store.append(at(300, 100))
        assert await store.read("anna") == ["old 1", "old 2", "100", "300"]
        tcp.execute("RPUSH", key("history"), "by an old worker")
        await store.append(at(200, 400))
        history = await store.read("anna")
        assert [item for item in history if item.isdigit()] == ["100", "300", "200", "400"]
        await store.forget("anna")
        assert tcp.execute("EXISTS", key("times"), key("history")) == 0

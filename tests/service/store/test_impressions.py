"""Caps on how often an item is shown, and pages without repeats, with a real Redis."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.errors import InvalidRequestError
from service.settings import Settings
from service.store.cursors import Cursor
from service.store.events import Event
from service.store.histories import HistoryStore
from service.store.impressions import Impressions
from service.store.pages import Pages
from service.store.redis_client import ResilientRedis, deployment_of
from service.store.shown_items import MAX_TIMES, ShownCap
from service.telemetry.metrics import Metrics
from tests.evidence.redis_servers import RedisServer

pytestmark = pytest.mark.anyio

MakeSettings = Callable[..., Settings]
PROPERTY = {
    "max_examples": 30,
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


class Stores(NamedTuple):
    shown: Impressions
    pages: Pages
    histories: HistoryStore

    async def reached(self, cap: ShownCap) -> list[str]:
        return sorted((await self.histories.read_user("anna", cap=cap)).shown)

    async def report(self, item: str, impression: str | None, moment: float | None = None) -> None:
        event = Event(
            user_id="anna",
            item_id=item,
            event="impression",
            impression_id=impression,
            timestamp=moment,
        )
        await self.histories.append([event])


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Stores]:
    metrics = Metrics()
    redis = ResilientRedis(deployment_of(settings), settings, metrics)
    await redis.start()
    try:
        histories = HistoryStore(redis, settings, metrics)
        yield Stores(Impressions(redis, settings), Pages(redis, settings), histories)
    finally:
        await redis.close()


async def test_an_item_is_allowed_as_often_as_the_cap_says(settings: MakeSettings) -> None:
    cap = ShownCap(2, since=0)
    async with started(settings()) as stores:
        assert await stores.shown.note("anna", "first", ["a", "b"], cap) == [True, True]
        assert await stores.reached(cap) == []
        assert await stores.shown.note("anna", "second", ["b", "c"], cap) == [True, True]
        assert await stores.reached(cap) == ["b"]
        assert await stores.shown.note("anna", "third", ["a", "b", "c"], cap) == [True, False, True]
        assert await stores.reached(cap) == ["a", "b", "c"]
        assert await stores.reached(ShownCap(3, since=0)) == []
        assert await stores.shown.note("bert", "first", ["b"], cap) == [True]


async def test_only_the_window_counts(settings: MakeSettings) -> None:
    now = time.time()
    async with started(settings()) as stores:
        for days in (9, 5, 1):
            await stores.report("a", None, now - days * 86_400)
        assert await stores.reached(ShownCap(3, since=0)) == ["a"]
        assert await stores.reached(ShownCap(3, since=now - 8 * 86_400)) == []
        assert await stores.reached(ShownCap(2, since=now - 8 * 86_400)) == ["a"]
        two_days = ShownCap(2, since=now - 2 * 86_400)
        assert await stores.shown.note("anna", "x", ["a"], two_days) == [True]
        assert await stores.shown.note("anna", "y", ["a"], two_days) == [False]


async def test_an_impression_counts_once(settings: MakeSettings) -> None:
    cap = ShownCap(2, since=0)
    async with started(settings()) as stores:
        await stores.shown.note("anna", "first", ["a", "b"], cap)
        for _ in range(3):
            await stores.report("a", "first")
        assert await stores.reached(cap) == []
        await stores.report("a", "second")
        await stores.report("b", None)
        assert await stores.reached(cap) == ["a", "b"]


async def test_as_many_impressions_are_kept_as_a_cap_can_count(settings: MakeSettings) -> None:
    async with started(settings()) as stores:
        for number in range(MAX_TIMES + 5):
            await stores.report("a", f"{number}")
        assert await stores.reached(ShownCap(MAX_TIMES, since=0)) == ["a"]


async def test_the_items_shown_last_are_kept(settings: MakeSettings, tcp: RedisServer) -> None:
    chosen = settings(redis_url=tcp.url, shown_max_items=8, shown_ttl_days=2)
    now = time.time()
    async with started(chosen) as stores:
        for number in range(11):
            await stores.report(f"{number:02}", None, now - 100 + number)
        assert await stores.reached(ShownCap(1, since=0)) == [f"{n:02}" for n in range(3, 11)]
        [key] = tcp.execute("KEYS", "re4:*:shown:anna")
        assert 172_700 < tcp.execute("TTL", key) <= 172_800
        assert await stores.histories.read("anna") == []
        await stores.histories.forget("anna")
        assert tcp.execute("EXISTS", key) == 0


async def test_an_event_sent_again_is_shown_once(settings: MakeSettings) -> None:
    event = Event(user_id="anna", item_id="a", event="impression", event_id="1")
    async with started(settings()) as stores:
        await stores.histories.append([event])
        await stores.histories.append([event])
        assert await stores.reached(ShownCap(2, since=0)) == []


ITEMS = st.lists(st.sampled_from(["a", "b", "c:;", "d é", "1:e;"]), unique=True, max_size=5)


@given(answers=st.lists(ITEMS, max_size=12), times=st.integers(1, 3), at_once=st.integers(1, 6))
@hypothesis_settings(**PROPERTY)  # type: ignore[arg-type]
async def test_no_cap_is_exceeded_however_many_answers_come_at_once(
    settings: MakeSettings, tcp: RedisServer, answers: list[list[str]], times: int, at_once: int
) -> None:
    tcp.execute("FLUSHALL")
    cap = ShownCap(times, since=0)
    shown: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    async with started(settings(redis_url=tcp.url)) as stores:
        for first in range(0, len(answers), at_once):
            batch = answers[first : first + at_once]
            notes = [
                stores.shown.note("anna", f"{first}-{number}", items, cap)
                for number, items in enumerate(batch)
            ]
            for items, allowed in zip(batch, await asyncio.gather(*notes), strict=True):
                wanted.update(items)
                shown.update(item for item, may in zip(items, allowed, strict=True) if may)
        assert shown == {item: min(count, times) for item, count in wanted.items()}
        assert await stores.reached(cap) == sorted(i for i, n in shown.items() if n == times)


# --- pages ---

CATALOG = [f"{number}" for number in range(12)]


async def page_after(
    stores: Stores, cursor: Cursor, order: list[str], k: int
) -> tuple[Cursor, set[str]]:
    """What a service does that ranks the items in this order."""
    before = await stores.pages.shown(cursor)
    items = [item for item in order if item not in before][:k]
    following = await stores.pages.add(cursor, items)
    assert following is not None
    return following, {*items}


@given(
    orders=st.lists(st.permutations(CATALOG), min_size=1, max_size=8),
    sizes=st.lists(st.integers(1, 4), min_size=8, max_size=8),
    again=st.lists(st.integers(0, 7), min_size=8, max_size=8),
)
@hypothesis_settings(**PROPERTY)  # type: ignore[arg-type]
async def test_no_chain_of_cursors_repeats_an_item(
    settings: MakeSettings,
    tcp: RedisServer,
    orders: list[list[str]],
    sizes: list[int],
    again: list[int],
) -> None:
    """Also if a client goes back to an earlier page, and on from there by another way."""
    tcp.execute("FLUSHALL")
    chains: list[tuple[Cursor, set[str]]] = [(Cursor.of("start"), set())]
    async with started(settings(redis_url=tcp.url)) as stores:
        for order, k, back in zip(orders, sizes, again, strict=False):
            cursor, shown = chains[-1 - back % len(chains)] if back > 4 else chains[-1]
            following, items = await page_after(stores, cursor, order, k)
            assert not items & shown
            if not items:
                break
            chains.append((following, shown | items))


async def test_a_cursor_expires_and_ends(settings: MakeSettings, tcp: RedisServer) -> None:
    chosen = settings(redis_url=tcp.url, cursor_max_items=3, cursor_ttl_minutes=2)
    async with started(chosen) as stores:
        first = await stores.pages.add(Cursor.of("start"), ["a", "b"])
        assert first is not None
        assert first.page == 1
        assert Cursor.of(str(first)) == first
        assert await stores.pages.shown(first) == ["a", "b"]
        assert await stores.pages.add(first, ["c"]) is None, "no more may be noted"
        [key] = tcp.execute("KEYS", "re4:*:pages:*")
        assert 110 < tcp.execute("TTL", key) <= 120
        tcp.execute("DEL", key)
        with pytest.raises(InvalidRequestError, match="cursor: expired, or of no answer"):
            await stores.pages.shown(first)

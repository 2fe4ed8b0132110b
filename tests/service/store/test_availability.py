"""A withdrawn item is in no response: of any process or release, whatever happens to Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from index.release.reading import Release, open_release
from service.app import create_app
from service.auth.api_keys import ROLES, key_line, new_key
from service.errors import HistoryUnavailableError
from service.settings import Settings
from service.store.availability import ItemAvailability
from service.store.redis_client import ResilientRedis, deployment_of
from service.telemetry.metrics import Metrics
from tests.evidence.redis_servers import RedisServer
from tests.service.application import state_behind
from tests.service.conftest import client_of

pytestmark = pytest.mark.anyio

MakeSettings = Callable[..., Settings]
Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

ADMIN = {"headers": {"authorization": "Bearer key"}}
WITHDRAWN = "re4:{withdrawn}:items"
REQUEST = {"sequence": ["item-3"], "k": 40, "exclude_seen": False}


class Live:
    """The release in use, if there is one."""

    def __init__(self, release: Release | None = None) -> None:
        self.release = release


@asynccontextmanager
async def following(
    settings: Settings, release: Release | None = None, watch: bool = True
) -> AsyncIterator[ItemAvailability]:
    metrics = Metrics()
    redis = ResilientRedis(deployment_of(settings), settings, metrics)
    await redis.start()
    availability = ItemAvailability(redis, Live(release), settings, metrics)
    watching = [asyncio.create_task(availability.watch())] if watch else []
    try:
        yield availability
    finally:
        for task in watching:
            task.cancel()
        await redis.close()


async def withdraw(availability: ItemAvailability, *items: str, available: bool = False) -> None:
    await availability.change([(item, available) for item in items])


def vanished(availability: ItemAvailability) -> float:
    [metric] = availability._metrics.withdrawn_vanished.collect()
    return metric.samples[0].value


async def recommended(client: httpx.AsyncClient, body: dict[str, object] = REQUEST) -> set[str]:
    answer = (await client.post("/recommend", json=body)).json()
    return {item["item_id"] for item in answer["items"]}


async def set_available(client: httpx.AsyncClient, item: str, available: bool) -> object:
    path = f"/items/{quote(item, safe='')}"
    response = await client.put(path, json={"available": available}, **ADMIN)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_withdrawn_item_is_in_no_response(serve: Serve) -> None:
    popular = {"sequence": [], "k": 40}
    async with serve(admin_key="key") as client:
        assert {"item-1", "item-5"} <= await recommended(client)
        withdrawn = {"available": False, "known": True}
        assert await set_available(client, "item-5", False) == {**withdrawn, "changed": True}
        assert await set_available(client, "item-5", False) == {**withdrawn, "changed": False}
        await set_available(client, "item-1", False)
        await set_available(client, "a/b ☃", False)

        assert not {"item-1", "item-5"} & await recommended(client)
        assert len(await recommended(client)) == 38
        assert not {"item-1", "item-5"} & await recommended(client, popular)
        metrics = (await client.get("/metrics")).text
        assert "re4_withdrawn_items 3.0" in metrics
        available = {"available": True, "changed": True, "known": True}
        assert await set_available(client, "item-5", True) == available
        assert "item-5" in await recommended(client)


async def test_an_item_stays_withdrawn_in_a_new_release_and_a_new_process(
    serve: Serve, settings: MakeSettings, publish: Publish
) -> None:
    async with serve(admin_key="key") as client:
        await set_available(client, "item-5", False)
        publish("second")
        reloaded = await client.post("/admin/reload", **ADMIN)
        assert reloaded.json() == {"release": "second", "changed": True}
        assert len(await recommended(client)) == 39
    publish("second")
    app = create_app(settings())
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app):
        await app.state.service.live.refresh()
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert "item-5" not in await recommended(client)
            assert len(await recommended(client)) == 39


async def test_every_process_knows_within_a_second(
    settings: MakeSettings, tcp: RedisServer, publish: Publish
) -> None:
    release, chosen = open_release(publish()), settings(redis_url=tcp.url)
    async with following(chosen, release) as first, following(chosen, release) as second:
        for available in (False, True):
            await withdraw(first, "item-5", available=available)
            assert len(first.withdrawn) == (not available)
            async with asyncio.timeout(1):
                while second.withdrawn != first.withdrawn:
                    await asyncio.sleep(0.01)
            rows = second.withdrawn_rows(release)
            expected = [] if available else ["item-5"]
            assert [release.retriever.catalog.id(row) for row in rows] == expected
            assert second.withdrawn_rows(release) is rows, "made once for a release and a change"


async def test_items_stay_withdrawn_while_redis_is_down(
    settings: MakeSettings, tcp: RedisServer, publish: Publish
) -> None:
    release, chosen = open_release(publish()), settings(redis_url=tcp.url, breaker_cooldown_s=0.01)
    async with following(chosen, release) as availability:
        await withdraw(availability, "item-5")
        tcp.stop()
        for _ in range(10):
            with pytest.raises(HistoryUnavailableError):
                await availability.poll()
        with pytest.raises(HistoryUnavailableError):
            await withdraw(availability, "item-6")
        assert len(availability.withdrawn_rows(release)) == 1
        tcp.start()  # with nothing in it
        async with asyncio.timeout(30):
            while not vanished(availability):
                await asyncio.sleep(0.01)
        async with asyncio.timeout(30):
            while tcp.execute("SMEMBERS", WITHDRAWN) != {b"item-5"}:
                await asyncio.sleep(0.01)
        await withdraw(availability, "item-7")
        assert len(availability.withdrawn_rows(release)) == 2


async def test_withdrawing_needs_the_role_catalog_if_there_are_keys(
    serve: Serve, tmp_path: Path
) -> None:
    keys = {role: new_key() for role in ROLES}
    lines = [key_line(key, [role]) for role, key in keys.items()]
    (tmp_path / "keys").write_text("\n".join(lines), encoding="utf-8")
    statuses = {"read": 403, "events": 403, "erase": 403, "catalog": 200, "admin": 200}
    async with serve(keys_file=tmp_path / "keys") as client:
        assert (await client.put("/items/item-5", json={"available": False})).status_code == 401
        for role, status in statuses.items():
            headers = {"authorization": f"Bearer {keys[role]}"}
            response = await client.put("/items/item-5", json={"available": False}, headers=headers)
            assert response.status_code == status


async def test_an_invalid_body_changes_nothing(serve: Serve) -> None:
    async with serve() as client:
        for body in ({}, {"available": "no"}, {"available": False, "more": 1}):
            assert (await client.put("/items/item-5", json=body)).status_code == 422
        response = await client.put("/items/item-5", json={"available": True})
        assert response.json() == {"available": True, "changed": False, "known": True}


# --- many items ---


@pytest.mark.parametrize("count", [100_000, 150_000])
async def test_a_fresh_process_knows_all_of_very_many_withdrawn_items(
    settings: MakeSettings, tcp: RedisServer, publish: Publish, count: int
) -> None:
    publish()
    with tcp.client() as client:
        for first in range(0, count, 1000):
            client.sadd(WITHDRAWN, *(f"old-{first + number}" for number in range(1000)))
        client.sadd(WITHDRAWN, "item-1")
        client.set("re4:{withdrawn}:version", "as an earlier version wrote it")
    app = create_app(settings(redis_url=tcp.url, redis_timeout_ms=50))
    async with client_of(app) as client:
        await app.state.service.live.refresh()
        async with asyncio.timeout(30):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
        assert "item-1" not in await recommended(client)
        assert len(app.state.service.availability.withdrawn) == count + 1
        for available in (False, True):
            changed = await client.put("/items/item-2", json={"available": available})
            assert changed.status_code == 200, changed.text
            assert ("item-2" in await recommended(client)) is available


async def test_changes_are_read_and_not_everything(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    chosen = settings(redis_url=tcp.url)
    async with (
        following(chosen, watch=False) as first,
        following(chosen, watch=False) as second,
    ):
        await withdraw(first, *(f"item-{number}" for number in range(3000)))
        await second.poll()
        before = tcp.execute("INFO", "commandstats")
        await withdraw(first, "one more")
        await withdraw(first, "item-7", available=True)
        await second.poll()
        after = tcp.execute("INFO", "commandstats")
        assert before["cmdstat_sscan"] == after["cmdstat_sscan"]
        assert second.withdrawn == first.withdrawn
        assert len(second.withdrawn) == 3000


async def test_a_process_that_missed_more_than_the_stream_holds_reads_everything(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    chosen = settings(redis_url=tcp.url)
    async with (
        following(chosen, watch=False) as first,
        following(chosen, watch=False) as second,
    ):
        await withdraw(first, "a", "b")
        await second.poll()
        await withdraw(first, "b", available=True)
        await withdraw(first, "c")
        tcp.execute("XTRIM", "re4:{withdrawn}:changes", "MAXLEN", 1)
        await second.poll()
        assert second.withdrawn == {"a", "c"}
        assert not vanished(second)


async def test_a_process_is_not_ready_until_it_has_read_what_is_withdrawn(serve: Serve) -> None:
    async with serve() as client:
        state = state_behind(client)
        assert (await client.get("/readyz")).status_code == 200
        state.availability._version = None  # as before the first poll
        response = await client.get("/readyz")
        if state.availability.is_read:  # polled meanwhile
            return
        assert response.status_code == 503
        assert "withdrawn items: not read" in response.text


async def test_many_items_are_withdrawn_at_once_and_listed_by_pages(serve: Serve) -> None:
    ids = [f"item-{number:03}/ß" for number in range(250)]
    async with serve() as client:
        body = [{"item_id": item, "available": False} for item in [*ids, "item-5"]]
        response = await client.put("/items", json=body)
        assert response.status_code == 200, response.text
        results = response.json()["items"]
        assert [result["item_id"] for result in results] == [*ids, "item-5"]
        assert [result["known"] for result in results] == [False] * 250 + [True]
        assert "item-5" not in await recommended(client)
        found: list[str] = []
        after: str | None = ""
        while after is not None:
            query = {"available": "false", "limit": "100", "after": after}
            page = (await client.get("/items", params=query)).json()
            found += page["items"]
            after = page["next"]
        assert found == sorted([*ids, "item-5"])
        assert (await client.get("/items")).status_code == 422
        assert (await client.get("/items?available=true")).status_code == 422
        for invalid in ([], body * 4, [{"item_id": "", "available": True}], {"item_id": "a"}):
            assert (await client.put("/items", json=invalid)).status_code == 422
        longest = [{"item_id": "\u00e9" * 250 + str(n), "available": True} for n in range(1000)]
        assert (await client.put("/items", json=longest)).status_code == 200


async def test_an_id_that_no_release_knows_is_reported_and_expires(
    settings: MakeSettings, tcp: RedisServer, publish: Publish
) -> None:
    chosen = settings(redis_url=tcp.url, unknown_item_ttl_days=10)
    async with (
        following(chosen, open_release(publish()), watch=False) as availability,
        following(chosen, watch=False) as other,
    ):
        results = await availability.change([("item-5", False), ("itme-5", False)])
        assert [result.known for result in results] == [True, False]
        now = 1_800_000_000.0
        await availability.expire(now)
        await availability.expire(now + 9 * 86_400)
        assert availability.withdrawn == {"item-5", "itme-5"}
        await availability.expire(now + 10 * 86_400)
        await other.poll()
        assert availability.withdrawn == other.withdrawn == {"item-5"}


# --- a Redis that forgets, or is full ---


@pytest.mark.parametrize("key", ["items", "*"])
async def test_withdrawn_items_that_vanish_from_redis_are_restored(
    settings: MakeSettings, tcp: RedisServer, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = settings(redis_url=tcp.url)
    async with (
        following(chosen, watch=False) as first,
        following(chosen, watch=False) as second,
    ):
        await withdraw(first, "a", "b", "c")
        await withdraw(first, "b", available=True)
        await second.poll()
        if key == "*":
            tcp.execute("FLUSHALL")
        else:
            tcp.execute("DEL", WITHDRAWN)  # as allkeys-lru may
        await withdraw(first, "d")
        await second.poll()
        assert first.withdrawn == second.withdrawn == {"a", "c", "d"}
        assert tcp.execute("SMEMBERS", WITHDRAWN) == {b"a", b"c", b"d"}
        assert vanished(first) + vanished(second) > 0
        assert "WITHDRAWN ITEMS VANISHED" in caplog.text
    if key == "items":
        tcp.execute("DEL", WITHDRAWN)
        async with following(chosen, watch=False) as third:
            await third.poll()
            assert vanished(third) == 1, "noticed by a process that did not know them"
            assert third.withdrawn == {"a", "c", "d"}, "from the changes that are left"


async def test_items_are_withdrawn_in_a_full_redis(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    chosen = settings(redis_url=tcp.url)
    async with following(chosen, watch=False) as availability:
        await withdraw(availability, "a")
        tcp.execute("CONFIG", "SET", "maxmemory", 1)
        await withdraw(availability, "b")
        await withdraw(availability, "a", available=True)
        assert availability.withdrawn == {"b"}


async def test_a_process_notices_changes_that_an_earlier_version_made(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    async with following(settings(redis_url=tcp.url), watch=False) as availability:
        await withdraw(availability, "a")
        tcp.execute("SADD", WITHDRAWN, "b")
        tcp.execute("SET", "re4:{withdrawn}:version", "0123456789abcdef")
        await availability.poll()
        assert availability.withdrawn == {"a", "b"}
        await withdraw(availability, "c")
        assert availability.withdrawn == {"a", "b", "c"}
        assert not vanished(availability)

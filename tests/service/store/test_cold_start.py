"""New items of events are soon recommended, marked, in every process; and removed again."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from index.release.manifest import read_manifest, write_manifest
from index.release.new_items import write_new_items
from index.retrieval.delta import Delta
from index.retrieval.details import Details
from service.app import create_app
from service.errors import HistoryUnavailableError
from service.settings import Settings
from service.store.cold_start import ColdStartItems
from service.store.cold_start_store import MAX_USERS, ColdStartStore
from service.store.redis_client import ResilientRedis, deployment_of
from service.telemetry.metrics import Metrics
from tests.evidence.redis_servers import RedisServer
from tests.service.application import state_behind
from tests.service.conftest import DIM

pytestmark = pytest.mark.anyio

MakeSettings = Callable[..., Settings]
Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

ADMIN = {"headers": {"authorization": "Bearer key"}}
REQUEST = {"sequence": ["item-3", "item-7"], "k": 50}


async def interact(client: httpx.AsyncClient, user: str, *items: str) -> None:
    events = [{"user_id": user, "item_id": item} for item in items]
    response = await client.post("/events", json=events)
    assert response.status_code == 200, response.text


async def announce(client: httpx.AsyncClient, *items: str) -> None:
    body = [{"item_id": item, "available": True} for item in items]
    response = await client.put("/items", json=body)
    assert response.status_code == 200, response.text


async def recommended(client: httpx.AsyncClient, **body: object) -> dict[str, dict[str, Any]]:
    response = await client.post("/recommend", json={**REQUEST, **body})
    assert response.status_code == 200, response.text
    return {item["item_id"]: item for item in response.json()["items"]}


async def wait_until_recommended(
    client: httpx.AsyncClient, item: str, expected: bool = True
) -> None:
    async with asyncio.timeout(20):
        while (item in await recommended(client)) is not expected:
            await asyncio.sleep(0.02)


async def test_a_new_item_of_several_users_is_recommended_and_marked(serve: Serve) -> None:
    async with serve() as client:
        before = await recommended(client)
        await announce(client, "new/ß")
        await interact(client, "anna", "item-3", "new/ß")
        await interact(client, "anna", "new/ß")  # again: still one user
        await interact(client, "nobody known", "x", "other", "new/ß")  # no known item before it
        await interact(client, "ben", "item-3", "item-7", "new/ß", "item-8")
        await wait_until_recommended(client, "new/ß")
        after = await recommended(client, explain=True)
        assert set(after) == {*before, "new/ß"}
        assert after.pop("new/ß")["new"] is True
        said = {"item_id": "new/ß", "title": "New", "attributes": {"price": 4.5}}
        assert (await client.post("/items", json=[said])).status_code == 200
        shown = (await recommended(client, include=["title", "price"]))["new/ß"]
        assert shown["attributes"] == {"title": "New", "price": 4.5}
        assert not any("new" in item for item in after.values())
        seen = await recommended(client, sequence=["item-3", "new/ß"])
        assert "new/ß" not in seen
        body = {"sequence": ["new/ß"], "explain": True}
        response = (await client.post("/recommend", json=body)).json()
        assert (response["source"], response["unknown_items"]) == ("interests", 1)
        attended = {
            item["item_id"] for interest in response["interests"] for item in interest["attended"]
        }
        assert attended == {"new/ß"}
        similar = (await client.get("/items/new%2F%C3%9F/similar?k=3")).json()
        assert len(similar["items"]) == 3
        metrics = (await client.get("/metrics")).text
        assert "re4_cold_start_items 1.0" in metrics
        assert "re4_cold_start_candidates_total" in metrics
        [batch] = (await client.post("/recommend/batch", json={"requests": [REQUEST]})).json()[
            "answers"
        ]
        assert any(item.get("new") for item in batch["items"])


async def test_new_items_may_be_withdrawn_and_their_users_forgotten(serve: Serve) -> None:
    async with serve() as client:
        await announce(client, "one", "two")
        for user in ("anna", "ben"):
            await interact(client, user, "item-3", "one", "item-4", "two")
        await wait_until_recommended(client, "one")
        await wait_until_recommended(client, "two")
        assert (await client.put("/items/one", json={"available": False})).status_code == 200
        assert "one" not in await recommended(client)
        assert "two" in await recommended(client)
        await client.put("/items/one", json={"available": True})
        assert "one" in await recommended(client)
        assert (await client.delete("/users/ben/history")).json() == {"forgotten": 4}
        await wait_until_recommended(client, "two", expected=False)
        assert "one" not in await recommended(client)


async def test_no_new_item_is_recommended_if_the_limit_is_zero(serve: Serve) -> None:
    async with serve(max_cold_start_items=0) as client:
        await announce(client, "new")
        for user in ("anna", "ben"):
            await interact(client, user, "item-3", "new")
        redis = state_behind(client).redis
        assert await redis.call("test", lambda server: server.exists(redis.keys.newcomers)) == 0


async def test_another_release_gives_new_items_other_vectors(
    serve: Serve, publish: Publish
) -> None:
    async with serve(admin_key="key") as client:
        await client.put("/items/new", json={"available": True}, **ADMIN)
        for user in ("anna", "ben"):
            await interact(client, user, "item-3", "new")
        await wait_until_recommended(client, "new")
        first = (await recommended(client))["new"]["score"]
        publish("second")
        assert (await client.post("/admin/reload", **ADMIN)).status_code == 200
        await wait_until_recommended(client, "new")
        assert (await recommended(client))["new"]["score"] != first


async def test_new_items_with_most_users_come_first(serve: Serve) -> None:
    async with serve(max_cold_start_items=1) as client:
        await announce(client, "two", "three")
        for user in ("anna", "ben"):
            await interact(client, user, "item-3", "two", "three")
        await interact(client, "carl", "item-3", "three")
        await wait_until_recommended(client, "three")
        assert "two" not in await recommended(client)


async def test_expired_interactions_do_not_count(serve: Serve) -> None:
    async with serve(cold_start_ttl_hours=1) as client:
        await announce(client, "old", "half", "new")
        state = state_behind(client)
        store = ColdStartStore(state.redis, 3_600_000)
        now = int(time.time() * 1000)
        for user, age_ms in (("anna", 3_601_000), ("ben", 3_601_000)):
            await store.record(now - age_ms, [("old", user, ["item-3"])])
        await store.record(now - 3_601_000, [("half", "anna", ["item-3"])])
        for user in ("ben", "carl"):
            await store.record(now, [("new", user, ["item-3"])])
        await store.record(now, [("half", "carl", ["item-3"])])
        await wait_until_recommended(client, "new")
        assert not {"old", "half"} & set(await recommended(client))


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, ColdStartItems]]:
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        await app.state.service.live.refresh()
        yield client, app.state.service.cold_start_items


async def test_every_process_knows_new_items_and_keeps_them_while_redis_is_down(
    settings: MakeSettings, tcp: RedisServer, publish: Publish
) -> None:
    publish()
    chosen = settings(redis_url=tcp.url, redis_timeout_ms=500, breaker_cooldown_s=0.05)
    async with served(chosen) as (client, _), served(chosen) as (second, store):
        await announce(client, "new")
        for user in ("anna", "ben"):
            await interact(client, user, "item-3", "new")
        await wait_until_recommended(client, "new")
        await wait_until_recommended(second, "new")
        async with served(chosen) as (third, _):
            await wait_until_recommended(third, "new")
        tcp.stop()
        with pytest.raises(HistoryUnavailableError):
            await store.poll()
        assert "new" in await recommended(second)
        tcp.start()


# --- items that nobody has taken ---


def add_new_items(folder: Path, details: Mapping[str, Details], length: float = 1.0) -> None:
    """Give the release vectors of some items from their words, and these details of them."""
    vectors = np.random.default_rng(5).standard_normal((len(details), DIM), dtype=np.float32)
    vectors *= np.float32(length)
    files = write_new_items(folder, Delta([*details], vectors, details))
    manifest = read_manifest(folder)
    files = {**manifest.files, **files}
    write_manifest(folder, manifest.model_copy(update={"files": files}))


@pytest.fixture
def described(publish: Publish) -> None:
    """Release `first` has vectors of `new` and `other` from their words."""
    add_new_items(publish(), {"new": Details(), "other": Details()})


@pytest.mark.usefixtures("described")
async def test_an_announced_item_is_offered_by_its_words_until_users_took_it(serve: Serve) -> None:
    async with serve() as client:
        await wait_for_delta(client)
        assert not {"new", "other"} & (await recommended(client)).keys(), "not announced"
        await announce(client, "new", "without words")
        offered = await recommended(client)
        assert offered["new"]["new"] is True
        assert not {"other", "without words"} & offered.keys()
        for user in ("anna", "ben"):
            await interact(client, user, "item-3", "new")
        async with asyncio.timeout(20):
            while (await recommended(client))["new"]["score"] == offered["new"]["score"]:
                await asyncio.sleep(0.02)
        await client.put("/items/new", json={"available": False})
        assert "new" not in await recommended(client)


@pytest.mark.usefixtures("described")
async def test_items_that_users_took_have_the_first_places(serve: Serve) -> None:
    async with serve(max_cold_start_items=1) as client:
        await wait_for_delta(client)
        await announce(client, "new")
        assert "new" in await recommended(client)
        await announce(client, "taken")
        for user in ("anna", "ben"):
            await interact(client, user, "item-3", "taken")
        await wait_until_recommended(client, "taken")
        assert "new" not in await recommended(client)


async def wait_for_delta(client: httpx.AsyncClient) -> None:
    """Until the service has looked for cold-start items of its release once."""
    await state_behind(client).cold_start_items.poll()


# --- only what the shop announced ---


async def test_an_item_that_the_shop_did_not_announce_is_never_offered(serve: Serve) -> None:
    forged = "<script>alert(1)</script>"
    async with serve() as client:
        await announce(client, "new")
        for user in ("bot 1", "bot 2", "bot 3"):
            await interact(client, user, "item-3", forged, "item-7", "new")
        await wait_until_recommended(client, "new")
        assert forged not in await recommended(client)
        await client.put("/items/new", json={"available": False})
        assert "new" not in await recommended(client)
        redis = state_behind(client).redis
        stored = await redis.call("test", lambda server: server.keys("*newcomers*"))
        assert not any(b"script" in key for key in stored)


async def test_an_announcement_lasts_until_it_expires(serve: Serve) -> None:
    async with serve(unknown_item_ttl_days=1) as client:
        await announce(client, "new")
        for user in ("anna", "ben"):
            await interact(client, user, "item-3", "new")
        await wait_until_recommended(client, "new")
        availability = state_behind(client).availability
        await availability.expire(time.time() + 86_401)
        assert "new" not in await recommended(client)


# --- bounded, and the same in every process ---


@asynccontextmanager
async def store_of(settings: Settings) -> AsyncIterator[ColdStartStore]:
    redis = ResilientRedis(deployment_of(settings), settings, Metrics())
    await redis.start()
    try:
        yield ColdStartStore(redis, 3_600_000)
    finally:
        await redis.close()


async def test_a_process_started_later_offers_the_same(
    settings: MakeSettings, tcp: RedisServer, publish: Publish
) -> None:
    publish()
    chosen = settings(redis_url=tcp.url)
    now = int(time.time() * 1000)
    async with served(chosen) as (client, first), store_of(chosen) as store:
        await announce(client, *(f"new-{number}" for number in range(300)))
        for user in range(60):  # 18,000 interactions
            taken = [(f"new-{number}", f"user {user}", ["item-3"]) for number in range(300)]
            await store.record(now + user, taken)
        await first.poll()
        async with served(chosen) as (_, second):
            await second.poll()
            assert len(second) == len(first) == 300
            assert offered(first) == offered(second)
            assert len(offered(first)) == 300


def offered(items: ColdStartItems) -> list[str]:
    release = items._live.release
    assert release is not None
    delta = items.delta(release)
    assert delta is not None
    return [*delta.ids]


async def test_the_store_of_interactions_is_bounded(
    settings: MakeSettings, tcp: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.cold_start_store.MAX_ITEMS", 20)
    async with store_of(settings(redis_url=tcp.url)) as store:
        for number in range(100):
            await store.record(1000 + number, [(f"item {number}", "anna", ["a"])])
        assert tcp.execute("ZCARD", "re4:{newcomers}:items") == 20
        assert len(tcp.execute("KEYS", "re4:{newcomers}:of:*")) == 20
        for number in range(MAX_USERS + 10):
            await store.record(2000 + number, [("item 99", f"user {number}", ["a"])])
        [interactions] = (await store.read(["item 99"])).values()
        assert len(interactions) == MAX_USERS
        assert interactions[0].at_ms == 2010, "the newest users count"


async def test_a_user_is_forgotten_in_a_full_redis(serve: Serve, settings: MakeSettings) -> None:
    async with serve() as client:
        await announce(client, "new")
        for user in ("anna", "ben"):
            await interact(client, user, "item-3", "new")
        await wait_until_recommended(client, "new")
        redis = state_behind(client).redis
        await redis.call("test", lambda server: server.config_set("maxmemory", 1))
        forgotten = await client.delete("/users/ben/history")
        assert (forgotten.status_code, forgotten.json()) == (200, {"forgotten": 2})
        await wait_until_recommended(client, "new", expected=False)
        assert (await client.get("/users/ben/history")).json() == {"items": [], "count": 0}

"""Items of today's events are in answers a moment later, marked, in every process; and go again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.errors import HistoryUnavailableError
from service.settings import Settings
from service.store.cold_start import TAKES, ColdStartItems
from tests.evidence.redises import RedisServer

pytestmark = pytest.mark.anyio

MakeSettings = Callable[..., Settings]
Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

ADMIN = {"headers": {"authorization": "Bearer key"}}
ASKED = {"sequence": ["item-3", "item-7"], "k": 50}


async def take(client: httpx.AsyncClient, user: str, *items: str) -> None:
    events = [{"user_id": user, "item_id": item} for item in items]
    response = await client.post("/events", json=events)
    assert response.status_code == 200, response.text


async def offered(client: httpx.AsyncClient, **asked: object) -> dict[str, dict[str, Any]]:
    response = await client.post("/recommend", json={**ASKED, **asked})
    assert response.status_code == 200, response.text
    return {item["item_id"]: item for item in response.json()["items"]}


async def until(client: httpx.AsyncClient, item: str, there: bool = True) -> None:
    async with asyncio.timeout(20):
        while (item in await offered(client)) is not there:
            await asyncio.sleep(0.02)


async def test_what_several_users_took_is_offered_and_marked(serve: Serve) -> None:
    async with serve() as client:
        before = await offered(client)
        await take(client, "anna", "item-3", "new/ß")
        await take(client, "anna", "new/ß")  # again: she is one user
        await take(client, "nobody known", "x", "other", "new/ß")  # after nothing that is known
        await take(client, "ben", "item-3", "item-7", "new/ß", "item-8")
        await until(client, "new/ß")
        after = await offered(client, explain=True)
        assert set(after) == {*before, "new/ß"}
        assert after.pop("new/ß")["new"] is True
        assert not any("new" in item for item in after.values())
        seen = await offered(client, sequence=["item-3", "new/ß"])
        assert "new/ß" not in seen
        asked = {"sequence": ["new/ß"], "explain": True}
        told = (await client.post("/recommend", json=asked)).json()
        assert (told["source"], told["unknown_items"]) == ("interests", 1)
        attended = {each["item_id"] for one in told["interests"] for each in one["attended"]}
        assert attended == {"new/ß"}
        similar = (await client.get("/items/new%2F%C3%9F/similar?k=3")).json()
        assert len(similar["items"]) == 3
        metrics = (await client.get("/metrics")).text
        assert "re4_new_items 1.0" in metrics
        assert "re4_new_candidates_total" in metrics
        [batch] = (await client.post("/recommend/batch", json={"requests": [ASKED]})).json()[
            "answers"
        ]
        assert any(item.get("new") for item in batch["items"])


async def test_they_may_be_withdrawn_and_users_forgotten(serve: Serve) -> None:
    async with serve() as client:
        for user in ("anna", "ben"):
            await take(client, user, "item-3", "one", "item-4", "two")
        await until(client, "one")
        await until(client, "two")
        assert (await client.put("/items/one", json={"available": False})).status_code == 200
        assert "one" not in await offered(client)
        assert "two" in await offered(client)
        await client.put("/items/one", json={"available": True})
        assert "one" in await offered(client)
        assert (await client.delete("/users/ben/history")).json() == {"forgotten": 4}
        await until(client, "two", there=False)
        assert "one" not in await offered(client)


async def test_none_are_offered_where_none_are_wanted(serve: Serve) -> None:
    async with serve(max_cold_start_items=0) as client:
        for user in ("anna", "ben"):
            await take(client, user, "item-3", "new")
        redis = client._transport.app.state.service.redis  # type: ignore[attr-defined]
        assert await redis.call("test", lambda server: server.exists(TAKES)) == 0


async def test_another_release_places_them_anew(serve: Serve, publish: Publish) -> None:
    async with serve(admin_key="key") as client:
        for user in ("anna", "ben"):
            await take(client, user, "item-3", "new")
        await until(client, "new")
        first = (await offered(client))["new"]["score"]
        publish("second")
        assert (await client.post("/admin/reload", **ADMIN)).status_code == 200
        await until(client, "new")
        assert (await offered(client))["new"]["score"] != first


async def test_most_taken_come_first(serve: Serve) -> None:
    async with serve(max_cold_start_items=1) as client:
        for user in ("anna", "ben"):
            await take(client, user, "item-3", "two", "three")
        await take(client, "carl", "item-3", "three")
        await until(client, "three")
        assert "two" not in await offered(client)


async def test_old_takes_do_not_count(serve: Serve) -> None:
    async with serve() as client:
        old = {"item_id": "old", "user": "somebody", "after": '["item-3"]'}
        redis = client._transport.app.state.service.redis  # type: ignore[attr-defined]
        await redis.call("test", lambda server: server.xadd(TAKES, old, "1-1"))
        await take(client, "anna", "item-3", "old", "new")
        await take(client, "ben", "item-3", "new")
        await until(client, "new")
        assert "old" not in await offered(client)


@asynccontextmanager
async def hearing(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, ColdStartItems]]:
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        await app.state.service.live.refresh()
        yield client, app.state.service.newcomers


async def test_every_process_hears_of_them_and_keeps_them_while_redis_is_away(
    settings: MakeSettings, tcp: RedisServer, publish: Publish
) -> None:
    publish()
    chosen = settings(redis_url=tcp.url, redis_timeout_ms=500, breaker_cooldown_s=0.05)
    async with hearing(chosen) as (client, _), hearing(chosen) as (other, newcomers):
        for user in ("anna", "ben"):
            await take(client, user, "item-3", "new")
        await until(client, "new")
        await until(other, "new")
        async with hearing(chosen) as (late, _):
            await until(late, "new")
        tcp.stop()
        with pytest.raises(HistoryUnavailableError):
            await newcomers.poll()
        assert "new" in await offered(other)
        tcp.start()

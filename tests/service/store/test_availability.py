"""An item withdrawn now is in no answer: of any process, of any release, whatever Redis does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from index.release.reading import open_release
from service.app import create_app
from service.auth.api_keys import ROLES, key_line, new_key
from service.errors import HistoryUnavailableError
from service.settings import Settings
from service.store.availability import WithdrawnItems
from service.store.redis_client import ResilientRedis
from service.store.redis_url import address_of
from service.telemetry.metrics import Metrics
from tests.evidence.redises import RedisServer

pytestmark = pytest.mark.anyio

MakeSettings = Callable[..., Settings]
Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

ADMIN = {"headers": {"authorization": "Bearer key"}}
ASKED = {"sequence": ["item-3"], "k": 40, "exclude_seen": False}


@asynccontextmanager
async def knowing(settings: Settings) -> AsyncIterator[WithdrawnItems]:
    link = ResilientRedis(address_of(settings), settings, Metrics())
    await link.start()
    withdrawn = WithdrawnItems(link)
    watching = asyncio.create_task(withdrawn.watch())
    yield withdrawn
    watching.cancel()
    await link.close()


async def offered(client: httpx.AsyncClient, asked: dict[str, object] = ASKED) -> set[str]:
    answer = (await client.post("/recommend", json=asked)).json()
    return {item["item_id"] for item in answer["items"]}


async def put(client: httpx.AsyncClient, item: str, available: bool) -> object:
    path = f"/items/{quote(item, safe='')}"
    response = await client.put(path, json={"available": available}, **ADMIN)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_withdrawn_item_is_in_no_answer(serve: Serve) -> None:
    popular = {"sequence": [], "k": 40}
    async with serve(admin_key="key") as client:
        assert {"item-1", "item-5"} <= await offered(client)
        assert await put(client, "item-5", False) == {"available": False, "changed": True}
        assert await put(client, "item-5", False) == {"available": False, "changed": False}
        await put(client, "item-1", False)
        await put(client, "a/b ☃", False)

        assert not {"item-1", "item-5"} & await offered(client)
        assert len(await offered(client)) == 38
        assert not {"item-1", "item-5"} & await offered(client, popular)
        metrics = (await client.get("/metrics")).text
        assert "re4_withdrawn_items 3.0" in metrics
        assert await put(client, "item-5", True) == {"available": True, "changed": True}
        assert "item-5" in await offered(client)


async def test_it_stays_so_with_a_new_release_and_a_new_process(
    serve: Serve, settings: MakeSettings, publish: Publish
) -> None:
    async with serve(admin_key="key") as client:
        await put(client, "item-5", False)
        publish("second")
        reloaded = await client.post("/admin/reload", **ADMIN)
        assert reloaded.json() == {"release": "second", "changed": True}
        assert len(await offered(client)) == 39
    publish("second")
    app = create_app(settings())
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app):
        await app.state.service.live.refresh()
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            assert "item-5" not in await offered(client)
            assert len(await offered(client)) == 39


async def test_every_process_hears_of_it_within_a_second(
    settings: MakeSettings, tcp: RedisServer, publish: Publish
) -> None:
    release, chosen = open_release(publish()), settings(redis_url=tcp.url)
    async with knowing(chosen) as one, knowing(chosen) as other:
        for available in (False, True):
            await one.set("item-5", available)
            assert len(one) == (not available)
            async with asyncio.timeout(1):
                while len(other) != len(one):
                    await asyncio.sleep(0.01)
            rows = other.rows(release)
            assert [release.retriever.catalog.id(row) for row in rows] == ["item-5"][: len(one)]
            assert other.rows(release) is rows, "made once for a release and a change"


async def test_what_is_known_stays_known_while_redis_is_away(
    settings: MakeSettings, tcp: RedisServer, publish: Publish
) -> None:
    release, chosen = open_release(publish()), settings(redis_url=tcp.url, breaker_cooldown_s=0.01)
    async with knowing(chosen) as withdrawn:
        await withdrawn.set("item-5", False)
        tcp.stop()
        for _ in range(10):
            with pytest.raises(HistoryUnavailableError):
                await withdrawn.poll()
        with pytest.raises(HistoryUnavailableError):
            await withdrawn.set("item-6", False)
        assert len(withdrawn.rows(release)) == 1
        tcp.start()  # with nothing in it
        async with asyncio.timeout(30):
            while len(withdrawn):
                await asyncio.sleep(0.01)
        await withdrawn.set("item-7", False)
        assert len(withdrawn.rows(release)) == 1


async def test_it_takes_the_role_events_where_there_are_keys(serve: Serve, tmp_path: Path) -> None:
    keys = {role: new_key() for role in ROLES}
    lines = [key_line(key, [role]) for role, key in keys.items()]
    (tmp_path / "keys").write_text("\n".join(lines), encoding="utf-8")
    statuses = {"read": 403, "events": 200, "admin": 200}
    async with serve(keys_file=tmp_path / "keys") as client:
        assert (await client.put("/items/item-5", json={"available": False})).status_code == 401
        for role, status in statuses.items():
            headers = {"authorization": f"Bearer {keys[role]}"}
            response = await client.put("/items/item-5", json={"available": False}, headers=headers)
            assert response.status_code == status


async def test_a_bad_body_changes_nothing(serve: Serve) -> None:
    async with serve() as client:
        for body in ({}, {"available": "no"}, {"available": False, "more": 1}):
            assert (await client.put("/items/item-5", json=body)).status_code == 422
        response = await client.put("/items/item-5", json={"available": True})
        assert response.json() == {"available": True, "changed": False}

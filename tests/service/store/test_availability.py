"""A withdrawn item is in no response: of any process or release, whatever happens to Redis."""

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
from service.store.redis_client import ResilientRedis, deployment_of
from service.telemetry.metrics import Metrics
from tests.evidence.redis_servers import RedisServer

pytestmark = pytest.mark.anyio

MakeSettings = Callable[..., Settings]
Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

ADMIN = {"headers": {"authorization": "Bearer key"}}
REQUEST = {"sequence": ["item-3"], "k": 40, "exclude_seen": False}


@asynccontextmanager
async def watching_withdrawn_items(settings: Settings) -> AsyncIterator[WithdrawnItems]:
    redis = ResilientRedis(deployment_of(settings), settings, Metrics())
    await redis.start()
    withdrawn = WithdrawnItems(redis)
    watching = asyncio.create_task(withdrawn.watch())
    yield withdrawn
    watching.cancel()
    await redis.close()


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
        assert await set_available(client, "item-5", False) == {"available": False, "changed": True}
        assert await set_available(client, "item-5", False) == {
            "available": False,
            "changed": False,
        }
        await set_available(client, "item-1", False)
        await set_available(client, "a/b ☃", False)

        assert not {"item-1", "item-5"} & await recommended(client)
        assert len(await recommended(client)) == 38
        assert not {"item-1", "item-5"} & await recommended(client, popular)
        metrics = (await client.get("/metrics")).text
        assert "re4_withdrawn_items 3.0" in metrics
        assert await set_available(client, "item-5", True) == {"available": True, "changed": True}
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
    async with (
        watching_withdrawn_items(chosen) as first,
        watching_withdrawn_items(chosen) as second,
    ):
        for available in (False, True):
            await first.set("item-5", available)
            assert len(first) == (not available)
            async with asyncio.timeout(1):
                while len(second) != len(first):
                    await asyncio.sleep(0.01)
            rows = second.rows(release)
            assert [release.retriever.catalog.id(row) for row in rows] == ["item-5"][: len(first)]
            assert second.rows(release) is rows, "made once for a release and a change"


async def test_items_stay_withdrawn_while_redis_is_down(
    settings: MakeSettings, tcp: RedisServer, publish: Publish
) -> None:
    release, chosen = open_release(publish()), settings(redis_url=tcp.url, breaker_cooldown_s=0.01)
    async with watching_withdrawn_items(chosen) as withdrawn:
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
        assert response.json() == {"available": True, "changed": False}

"""What a shop says about items: title, categories and attributes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.release.reading import Release, open_release
from service.settings import Settings
from service.store import item_details
from service.store.details import DetailsChange
from service.store.details_in_use import DetailsInUse
from service.store.item_details import ItemDetails
from service.store.redis_client import ResilientRedis, deployment_of
from service.telemetry.metrics import Metrics
from tests.evidence.redis_servers import RedisServer
from tests.service.application import state_behind
from tests.service.store.test_availability import Live

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
pytestmark = pytest.mark.anyio


async def item(client: httpx.AsyncClient, item_id: str) -> dict[str, Any]:
    response = await client.get(f"/items/{item_id}")
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


async def change(client: httpx.AsyncClient, item_id: str, **body: Any) -> dict[str, Any]:
    response = await client.put(f"/items/{item_id}", json=body)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


async def test_an_item_is_shown_with_what_was_changed(
    serve: Serve, publish: Callable[[], Path]
) -> None:
    publish()
    async with serve() as client:
        before = await item(client, "item-2")
        assert before["in_release"]
        assert before["available"]
        assert before["changed"] == []
        details = {"title": "Two", "attributes": {"price": 9, "stock": True, "locale": ["de", ""]}}
        refused = await client.put("/items/item-2", json=details)
        details["attributes"]["locale"] = ["de", "at"]
        first = await change(client, "item-2", **details)
        again = await change(client, "item-2", **details)
        more = await change(client, "item-2", categories=["a", "b"], attributes={"brand": "own"})
        after = await item(client, "item-2")
        await state_behind(client).item_details.poll()
        metrics = (await client.get("/metrics")).text
        await change(client, "item-2", title=None, categories=None, attributes={"brand": None})
        taken_back = await item(client, "item-2")

    assert refused.status_code == 422
    assert "re4_changed_items 1.0" in metrics
    assert first == more == {"available": True, "changed": True, "known": True}
    assert again == {"available": True, "changed": False, "known": True}
    attributes = {"price": 9, "stock": True, "locale": ["de", "at"]}
    assert after == {
        **before,
        "title": "Two",
        "categories": ["a", "b"],
        "attributes": {**attributes, "brand": "own"},
        "changed": ["title", "categories", "price", "stock", "locale", "brand"],
    }
    assert taken_back == {**before, "attributes": attributes, "changed": [*attributes]}


async def test_details_leave_the_availability_as_it_is(
    serve: Serve, publish: Callable[[], Path]
) -> None:
    publish()
    async with serve() as client:
        await change(client, "item-5", available=False)
        now = await change(client, "item-5", attributes={"price": 3.5})
        assert now == {"available": False, "changed": True, "known": True}
        assert not (await item(client, "item-5"))["available"]
        body = {"sequence": ["item-1"], "k": 40}
        answer = (await client.post("/recommend", json=body)).json()
        assert "item-5" not in {found["item_id"] for found in answer["items"]}
        both = await change(client, "item-5", available=True, title="Five")
        assert both == {"available": True, "changed": True, "known": True}
        assert (await item(client, "item-5"))["title"] == "Five"


async def test_many_items_are_added_at_once(serve: Serve, publish: Callable[[], Path]) -> None:
    publish()
    items = [{"item_id": f"new/{number}", "title": f"New {number}"} for number in range(600)]
    items += [{"item_id": "new/7", "attributes": {"price": 7.0}, "available": True}]
    async with serve() as client:
        unknown = await client.get("/items/new/7")
        results = (await client.post("/items", json=items)).json()["items"]
        found = await item(client, "new/7")
        invalid = [[], items * 2, [{"item_id": "a"}], [{"title": "A"}], {"item_id": "a"}]
        statuses = [(await client.post("/items", json=body)).status_code for body in invalid]

    assert unknown.status_code == 404
    assert [result["item_id"] for result in results] == [each["item_id"] for each in items]
    assert all(result["changed"] for result in results)
    assert (found["title"], found["attributes"]) == ("New 7", {"price": 7})
    assert (found["in_release"], found["available"], found["categories"]) == (False, True, [])
    assert statuses == [422] * 5


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"available": None},
        {"available": None, "item_id": "item-1"},
        {"title": ""},
        {"title": "a" * 1025},
        {"title": 5},
        {"categories": []},
        {"categories": ["a"] * 65},
        {"attributes": {"": 1}},
        {"attributes": {"price": {"lte": 5}}},
        {"attributes": {"tags": ["a", 5]}},
        {"attributes": {f"name {number}": 1 for number in range(65)}},
        {"colour": "red"},
    ],
)
async def test_an_invalid_change_is_refused(
    serve: Serve, publish: Callable[[], Path], body: dict[str, Any]
) -> None:
    publish()
    async with serve() as client:
        response = await client.put("/items/item-1", json=body)
    assert response.status_code == 422


async def test_details_are_bounded(
    serve: Serve, publish: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    monkeypatch.setattr(item_details, "MAX_ITEMS", 2)
    monkeypatch.setattr(item_details, "MAX_FIELDS", 3)
    async with serve() as client:
        await change(client, "item-1", title="One", attributes={"a": 1, "b": 2})
        many = await client.put("/items/item-1", json={"attributes": {"c": 3}})
        await change(client, "item-1", attributes={"a": None})
        await change(client, "item-1", attributes={"c": 3})
        await change(client, "item-2", title="Two")
        third = [{"item_id": "item-2", "title": "Zwei"}, {"item_id": "item-3", "title": "Three"}]
        refused = await client.post("/items", json=third)
        unchanged = await item(client, "item-2")
        await change(client, "item-1", title=None, attributes={"b": None, "c": None})
        accepted = await client.post("/items", json=third)

    for response in (many, refused):
        assert response.status_code == 409
        assert response.json()["error"]["code"] == "too_many_details"
    assert unchanged["title"] == "Two"
    assert accepted.status_code == 200


async def test_a_full_redis_refuses_details_and_takes_withdrawals(
    serve: Serve, publish: Callable[[], Path], tcp: RedisServer
) -> None:
    publish()
    async with serve(redis_url=tcp.url) as client:
        await change(client, "item-1", title="One")
        tcp.execute("CONFIG", "SET", "maxmemory", "1")
        refused = await client.put("/items/item-2", json={"available": False, "title": "Two"})
        withdrawn = await client.get("/items/item-2")
        again = await change(client, "item-3", available=False)
        tcp.execute("CONFIG", "SET", "maxmemory", "0")

    assert refused.status_code == 503
    assert not withdrawn.json()["available"]
    assert withdrawn.json()["changed"] == []
    assert again["changed"]


async def test_withdrawn_items_are_listed_by_cursor(
    serve: Serve, publish: Callable[[], Path]
) -> None:
    publish()
    ids = sorted(f"a/ß {number}" for number in range(25))
    async with serve() as client:
        await client.post("/items", json=[{"item_id": i, "available": False} for i in ids])
        found, cursor = [], ""
        while cursor is not None:
            query = {"available": "false", "limit": "10", "cursor": cursor}
            page = (await client.get("/items", params=query)).json()
            found += page["items"]
            cursor = page["cursor"]
    assert found == ids


async def test_filters_boosts_minimums_and_include_have_them_at_once(
    serve: Serve, publish: Callable[..., Path]
) -> None:
    publish()
    body = {"sequence": ["item-1"], "k": 3, "include": ["title", "price"]}
    async with serve() as client:
        details = {"title": "Five", "categories": ["new"], "attributes": {"price": 4.5}}
        await change(client, "item-5", **details)
        await change(client, "item-7", attributes={"price": 20.0})
        answers = [
            (await client.post("/recommend", json={**body, **more})).json()["items"]
            for more in (
                {"filter": {"all": [{"price": {"lte": 5}}]}},
                {"categories": {"allow": ["new"]}},
                {"min_per_category": {"new": 1}},
                {"boost": [{"filter": {"all": [{"price": {"gt": 0}}]}, "add": 100}]},
            )
        ]
        publish("second")
        await state_behind(client).live.refresh()
        await state_behind(client).item_details.poll()
        new = {**body, "categories": {"allow": ["new"]}}
        again = (await client.post("/recommend", json=new)).json()
        await change(client, "item-5", title=None, categories=None, attributes={"price": None})
        nothing = (await client.post("/recommend", json=new)).json()

    attributes = {"title": "Five", "price": 4.5}
    for found in answers[:2]:
        assert [(each["item_id"], each["attributes"]) for each in found] == [("item-5", attributes)]
    assert "item-5" in {each["item_id"] for each in answers[2]}
    assert {each["item_id"] for each in answers[3][:2]} == {"item-5", "item-7"}
    assert again["release"] == "second"
    assert [each["attributes"] for each in again["items"]] == [attributes]
    assert nothing["items"] == []


async def test_every_process_has_them_within_a_second(
    settings: Callable[..., Settings], tcp: RedisServer, publish: Callable[[], Path]
) -> None:
    release = open_release(publish())
    chosen = settings(redis_url=tcp.url)
    async with following(chosen, release) as first, following(chosen, release) as second:
        changes = [
            (f"item-{row}", DetailsChange.of({}, {"price": float(row)})) for row in range(1, 31)
        ]
        await first.stored.change(changes)
        start = time.monotonic()
        while second.release(release) is release:
            await asyncio.sleep(0.01)
            assert time.monotonic() < start + 1
        price = second.release(release).retriever.catalog.attributes["price"]
        assert [price[at] for at in range(30)] == list(range(1, 31))
        assert "price" not in release.retriever.catalog.attributes

        await first.stored.change([("item-1", DetailsChange.of({}, {"price": None}))])
        await second.poll()
        assert len(second) == 29
        tcp.execute("FLUSHALL")
        await second.poll()
        assert second.release(release) is release


@asynccontextmanager
async def following(settings: Settings, release: Release) -> AsyncIterator[DetailsInUse]:
    redis = ResilientRedis(deployment_of(settings), settings, Metrics())
    await redis.start()
    details = DetailsInUse(ItemDetails(redis), Live(release))
    watching = asyncio.create_task(details.watch())
    try:
        yield details
    finally:
        watching.cancel()
        await redis.close()

"""What a shop says about items: title, categories and attributes."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.store import item_details
from tests.evidence.redis_servers import RedisServer

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
        await change(client, "item-2", title=None, categories=None, attributes={"brand": None})
        taken_back = await item(client, "item-2")

    assert refused.status_code == 422
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
        response = await client.get("/items?available=false&cursor=%3F")
    assert found == ids
    assert response.status_code == 422
    assert "cursor" in response.json()["error"]["message"]

"""The page's own endpoints."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.application import state_behind

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


async def test_the_setup_says_what_the_page_shows_first(serve: Serve) -> None:
    async with serve() as client:
        setup = (await client.get("/page/setup")).json()
    assert setup["release"] == "second"
    assert setup["items"] == 40
    assert setup["interests"] == 3
    assert setup["examples"] == [["item-1", "item-7"], ["item-3"]]
    assert setup["categories"] == [[f"category {n}", 10] for n in (1, 2, 3)]
    assert setup["admin"] is False
    assert setup["keys"] is False


async def test_items_are_searched_by_title_and_by_id(serve: Serve) -> None:
    async with serve() as client:
        found = await client.get("/page/search", params={"q": "green TEA", "limit": 2})
        by_id = await client.get("/page/search", params={"q": "item-5"})
        nothing = await client.get("/page/search", params={"q": " "})
    assert [item["title"] for item in found.json()["items"]] == ["Green tea 1", "Green tea 2"]
    first = by_id.json()["items"][0]
    assert (first["item_id"], first["title"], first["category"]) == ("item-5", None, "category 1")
    assert nothing.json()["items"] == []


async def test_titles_and_categories_are_shown_and_searched_as_they_are_now(serve: Serve) -> None:
    async with serve() as client:
        changes = {"title": "Jasmine tea", "categories": ["drinks", "gifts"]}
        await client.put("/items/item-1", json=changes)
        await client.put("/items/item-2", json={"attributes": {"price": 2}})
        await state_behind(client).item_details.poll()
        body = {"items": ["item-1", "item-2"]}
        described = (await client.post("/page/describe", json=body)).json()["items"]
        other = await client.post("/page/describe", json={**body, "release": "first"})

        async def found(words: str) -> list[str]:
            answer = await client.get("/page/search", params={"q": words, "limit": 3})
            return [item["item_id"] for item in answer.json()["items"]]

        searched = [await found(words) for words in ("jasmine Drinks", "green tea", "oolong")]
    assert [(i["title"], i["category"]) for i in described.values()] == [
        ("Jasmine tea", "drinks"),
        ("Oolong tea 1", "category 2"),
    ]
    assert other.json()["items"]["item-1"]["title"] == "Jasmine tea"
    assert searched[0] == ["item-1"]
    assert "item-1" not in searched[1]
    assert searched[2][0] == "item-2"


async def test_items_and_interests_have_places(serve: Serve) -> None:
    body = {"items": ["item-2", "nothing", "item-2"], "sequence": ["item-1", "nothing"]}
    async with serve() as client:
        described = (await client.post("/page/describe", json=body)).json()
        unknown = (await client.post("/page/describe", json={"items": []})).json()
        sample = (await client.get("/page/map")).json()
    assert described["items"].keys() == {"item-2"}
    item = described["items"]["item-2"]
    assert item["title"] == "Oolong tea 1"
    assert item["interactions"] == 39
    assert len(described["interests"]) == 3
    assert all(len(place) == 2 for place in [item["place"], *described["interests"]])
    assert unknown == {"items": {}, "interests": []}
    assert len(sample["items"]) == 40
    assert item in sample["items"]
    assert 0 < sum(sample["explained"]) <= 1


async def test_another_release_answers_as_it_would_if_it_were_live(serve: Serve) -> None:
    request = {"sequence": ["item-1", "item-9"], "k": 7, "explain": True}
    async with serve(admin_key="k") as client:
        compared = await client.post("/page/compare", json={"release": "first", "request": request})
        described = await client.post("/page/describe", json={"items": [], "release": "first"})
        before = (await client.post("/recommend", json=request)).json()
        await _roll_back(client)
        live = (await client.post("/recommend", json=request)).json()
    assert described.status_code == 200
    del live["impression_id"]  # a comparison is not shown to a user
    assert compared.json() == live
    assert compared.json()["items"] != before["items"]
    assert (before["release"], live["release"]) == ("second", "first")


async def _roll_back(client: httpx.AsyncClient) -> None:
    headers = {"authorization": "Bearer k"}
    rolled = await client.post("/page/rollback", json={"to": "first"}, headers=headers)
    assert rolled.json() == {"release": "first"}


async def test_withdrawn_items_are_in_no_compared_answer(serve: Serve) -> None:
    body = {"release": "first", "request": {"sequence": ["item-1"], "k": 1}}
    async with serve() as client:
        best = (await client.post("/page/compare", json=body)).json()["items"][0]["item_id"]
        await client.put(f"/items/{best}", json={"available": False})
        after = (await client.post("/page/compare", json=body)).json()["items"][0]["item_id"]
    assert after != best


async def test_a_comparison_leaves_out_what_caps_and_pages_do_and_notes_nothing(
    serve: Serve,
) -> None:
    capped = {"user_id": "anna", "sequence": ["item-1"], "k": 5, "frequency_cap": {"times": 1}}
    paged = {"sequence": ["item-1"], "k": 5}

    async def compare(request: dict[str, Any]) -> list[str]:
        body = {"release": "first", "request": request}
        compared = (await client.post("/page/compare", json=body)).json()
        return [item["item_id"] for item in compared["items"]]

    async with serve() as client:
        before = await compare(capped)
        assert await compare(capped) == before
        for item in before[:2]:
            event = {"user_id": "anna", "item_id": item, "event": "impression"}
            await client.post("/events", json=event)
        assert not {*before[:2]} & {*await compare(capped)}
        first = (await client.post("/recommend", json={**paged, "cursor": "start"})).json()
        shown = {item["item_id"] for item in first["items"]}
        later = await compare({**paged, "cursor": first["cursor"], "k": 35})
    assert len(later) == 34  # of 40 items, without the page's five and the history's one
    assert not shown & {*later}


async def test_one_more_release_is_held_at_a_time(serve: Serve, root: Path) -> None:
    async with serve() as client:
        shown = client._transport.app.state.page  # type: ignore[attr-defined]
        first, _ = await shown.of("first")
        again = await asyncio.gather(*(shown.of("first") for _ in range(5)))
        live, _ = await shown.of("second")
        refused = await client.post("/page/describe", json={"items": [], "release": "third"})
    assert all(release is first for release, _ in again)
    assert live is state_behind(client).live.release
    assert refused.status_code == 409
    assert shown._other is None  # what was held made room before the next was opened


async def test_the_releases_are_listed_with_the_verdict_of_the_gate(serve: Serve) -> None:
    async with serve() as client:
        listed = (await client.get("/page/releases")).json()["releases"]
    assert [(r["id"], r["live"], r["parent"]) for r in listed] == [
        ("second", True, "first"),
        ("first", False, None),
    ]
    assert listed[0]["metrics"] == {"validation": {"recall@50": 0.2}}
    assert listed[0]["gate"] == []
    assert listed[0]["index"]["recall"] == 1.0


async def test_the_nights_are_listed(serve: Serve) -> None:
    async with serve() as client:
        [night] = (await client.get("/page/nights")).json()["nights"]
    assert night["outcome"] == "refused"


async def test_rolling_back_needs_the_admin_role(serve: Serve) -> None:
    async with serve() as client:
        assert (await client.post("/page/rollback", json={"to": "first"})).status_code == 404
    async with serve(admin_key="k") as client:
        refused = await client.post("/page/rollback", json={"to": "first"})
        headers = {"authorization": "Bearer k"}
        unknown = await client.post("/page/rollback", json={"to": "none"}, headers=headers)
        live = (await client.get("/release")).json()["release"]["id"]
    assert refused.status_code == 401
    assert unknown.status_code == 409
    assert live == "second"


async def test_the_endpoints_need_the_role_read(serve: Serve, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    roles = {"reader": "read", "writer": "events"}
    lines = (f"{role} {sha256(key.encode()).hexdigest()}\n" for key, role in roles.items())
    keys.write_text("".join(lines))

    async def status(client: httpx.AsyncClient, path: str, key: str | None) -> int:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return (await client.get(path, headers=headers)).status_code

    async with serve(keys_file=keys, page="on") as client:
        assert await status(client, "/", None) == 200
        assert await status(client, "/page/assets/app.js", None) == 200
        for path in ("/page/setup", "/page/search?q=a", "/page/map", "/page/releases"):
            answers = [await status(client, path, key) for key in (None, "writer", "reader")]
            assert answers == [401, 403, 200], path


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/page/search", None),
        ("GET", "/page/search?q=a&limit=1000", None),
        ("POST", "/page/describe", {"items": "item-1"}),
        ("POST", "/page/compare", {"release": "first", "request": {"k": 1}}),
    ],
)
async def test_invalid_requests_are_refused(
    serve: Serve, method: str, path: str, body: dict[str, Any] | None
) -> None:
    async with serve() as client:
        assert (await client.request(method, path, json=body)).status_code == 422

"""What is known of cold-start items: from the item file, and from what the shop says since."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.retrieval.details import Details
from tests.service.application import state_behind
from tests.service.store.test_cold_start import (
    add_new_items,
    announce,
    interact,
    recommended,
    wait_for_delta,
    wait_until_recommended,
)

pytestmark = pytest.mark.anyio

Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

FILE = {
    "cheap": Details("Cheap", ["category 1", "new"], {"price": 3.0, "tags": ("a", "b")}),
    "dear": Details("Dear", ["new"], {"price": 30.0}),
    "plain": Details("Plain"),
}
ONLY_CHEAP: dict[str, Any] = {"filter": {"all": [{"price": {"lte": 5}}]}}
ONLY_NEW: dict[str, Any] = {"categories": {"allow": ["new"]}}


async def say(client: httpx.AsyncClient, item: str, **details: Any) -> None:
    response = await client.put(f"/items/{item}", json=details)
    assert response.status_code == 200, response.text


@pytest.fixture
def described(publish: Publish) -> None:
    add_new_items(publish(), FILE)


@pytest.mark.usefixtures("described")
async def test_filters_rules_and_answers_have_the_details_of_the_item_file(serve: Serve) -> None:
    async with serve() as client:
        await wait_for_delta(client)
        await announce(client, *FILE)
        assert (await recommended(client)).keys() >= FILE.keys()
        assert (await recommended(client, **ONLY_NEW)).keys() == {"cheap", "dear"}
        assert (await recommended(client, **ONLY_CHEAP)).keys() == {"cheap"}
        denied = await recommended(client, categories={"deny": ["category 1"]})
        assert denied.keys() & FILE.keys() == {"dear", "plain"}
        least = await recommended(client, k=3, min_per_category={"new": 2})
        assert least.keys() > {"cheap", "dear"}
        raised = await recommended(client, k=1, boost=[{**ONLY_CHEAP, "add": 100}])
        assert raised.keys() == {"cheap"}
        shown = await recommended(client, include=["title", "price", "tags"])
        assert shown["cheap"]["attributes"] == {"title": "Cheap", "price": 3, "tags": ["a", "b"]}
        assert shown["plain"]["attributes"] == {"title": "Plain", "price": None, "tags": None}
        item = (await client.get("/items/cheap")).json()
    assert (item["title"], item["categories"]) == ("Cheap", ["category 1", "new"])
    assert item["attributes"] == {"price": 3, "tags": ["a", "b"]}
    assert (item["in_release"], item["changed"]) == (False, [])


@pytest.mark.usefixtures("described")
async def test_what_the_shop_says_is_over_the_item_file_until_it_is_taken_back(
    serve: Serve,
) -> None:
    async with serve() as client:
        await wait_for_delta(client)
        await announce(client, *FILE)
        await say(client, "cheap", attributes={"price": 9.0}, categories=["category 2"])
        await say(client, "plain", attributes={"price": 1.0, "sale": True})
        assert (await recommended(client, **ONLY_CHEAP)).keys() == {"plain"}
        assert (await recommended(client, **ONLY_NEW)).keys() == {"dear"}
        shown = await recommended(client, include=["title", "price", "tags"])
        assert shown["cheap"]["attributes"] == {"title": "Cheap", "price": 9, "tags": ["a", "b"]}
        await say(client, "cheap", attributes={"price": None}, categories=None)
        await say(client, "plain", attributes={"price": None, "sale": None})
        assert (await recommended(client, **ONLY_CHEAP)).keys() == {"cheap"}
        assert (await recommended(client, **ONLY_NEW)).keys() == {"cheap", "dear"}


async def test_an_item_that_users_took_has_what_the_shop_says(
    serve: Serve, publish: Publish
) -> None:
    publish()
    async with serve() as client:
        await say(client, "taken", available=True, categories=["new"], attributes={"price": 2.0})
        for user in ("anna", "ben"):
            await interact(client, user, "item-3", "taken")
        await wait_until_recommended(client, "taken")
        assert (await recommended(client, **ONLY_CHEAP)).keys() == {"taken"}
        popular = await recommended(client, sequence=[], **ONLY_NEW)
        assert [(item["score"], item["new"]) for item in popular.values()] == [(0, True)]


@pytest.mark.usefixtures("described")
async def test_details_of_other_items_leave_the_delta_as_it_is(serve: Serve) -> None:
    async with serve() as client:
        await wait_for_delta(client)
        await announce(client, *FILE)
        state = state_behind(client)
        release = state.live.release
        assert release is not None
        before = state.cold_start_items.delta(release)
        await say(client, "item-1", attributes={"price": 9.0})
        assert state.cold_start_items.delta(release) is before
        await say(client, "plain", attributes={"price": 9.0})
        assert state.cold_start_items.delta(release) is not before

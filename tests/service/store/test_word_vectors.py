"""An item that was announced and described through the API is offered by its words."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from index.release.manifest import read_manifest, write_manifest
from index.release.text_model import write_text_model
from index.retrieval.delta import normalize
from index.retrieval.details import Details
from index.retrieval.text_model import TextModel
from service.settings import Settings
from tests.evidence.redis_servers import RedisServer
from tests.service.application import state_behind
from tests.service.conftest import DIM
from tests.service.store.test_cold_start import (
    add_new_items,
    announce,
    interact,
    recommended,
    served,
    wait_for_delta,
    wait_until_recommended,
)

pytestmark = pytest.mark.anyio

Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
MODEL = TextModel(
    {"title red": 0, "title wine": 1, "category drinks": 2},
    idf=np.ones(3, np.float32),
    weights=np.random.default_rng(3).standard_normal((3, DIM), dtype=np.float32),
    intercept=np.zeros(DIM, np.float32),
    norm=2.0,
    terms=np.zeros(0, np.float32),
)


@pytest.fixture
def modelled(publish: Publish) -> None:
    """Release `first` has the model, and a vector of `filed` from the item file."""
    folder = publish()
    add_new_items(folder, {"filed": Details("Filed", ["drinks"])})
    manifest = read_manifest(folder)
    files = {**manifest.files, **write_text_model(folder, MODEL)}
    write_manifest(folder, manifest.model_copy(update={"files": files}))


async def say(client: httpx.AsyncClient, item: str, **details: Any) -> None:
    body = [{"item_id": item, "available": True, **details}]
    response = await client.post("/items", json=body)
    assert response.status_code == 200, response.text


def vector_of(client: httpx.AsyncClient, item: str) -> list[float] | None:
    state = state_behind(client)
    release = state.live.release
    assert release is not None
    delta = state.cold_start_items.delta(release)
    if delta is None or item not in delta.ids:
        return None
    vector: list[float] = delta.vectors[[*delta.ids].index(item)].tolist()
    return vector


async def wait_for_vector(client: httpx.AsyncClient, item: str, words: Details) -> None:
    expected = MODEL.delta({"": words}).vectors[0].tolist()
    async with asyncio.timeout(20):
        while vector_of(client, item) != expected:
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("modelled")
async def test_an_announced_item_is_offered_by_what_the_shop_says(serve: Serve) -> None:
    async with serve() as client:
        await wait_for_delta(client)
        await say(client, "wordless", title="Unknown")
        await say(client, "withdrawn", title="Red")
        await client.put("/items/withdrawn", json={"available": False})
        await say(client, "item-3", title="Red")
        await say(client, "new", title="Red wine", attributes={"price": 9.0})
        await wait_until_recommended(client, "new")
        found = await recommended(client, include=["title", "price"])
        assert found["new"]["new"] is True
        assert found["new"]["attributes"] == {"title": "Red wine", "price": 9}
        assert not {"wordless", "withdrawn"} & found.keys()
        assert vector_of(client, "item-3") is None, "of the release"
        await say(client, "new", title="Wine", categories=["drinks"])
        await wait_for_vector(client, "new", Details("Wine", ["drinks"]))
        await say(client, "new", title=None, categories=None)
        await wait_until_recommended(client, "new", expected=False)


@pytest.mark.usefixtures("modelled")
async def test_what_is_said_is_over_the_item_file(serve: Serve) -> None:
    async with serve() as client:
        await wait_for_delta(client)
        await announce(client, "filed")
        by_file = vector_of(client, "filed")
        assert by_file is not None
        await say(client, "filed", title="Red")
        await wait_for_vector(client, "filed", Details("Red", ["drinks"]))
        await say(client, "filed", title=None)
        async with asyncio.timeout(20):
            while vector_of(client, "filed") != by_file:
                await asyncio.sleep(0.02)


@pytest.mark.usefixtures("modelled")
async def test_users_who_take_it_pull_it_away_from_its_words(serve: Serve) -> None:
    async with serve() as client:
        await wait_for_delta(client)
        await say(client, "described", title="Red")
        await announce(client, "plain", "filed")
        await wait_for_vector(client, "described", Details("Red"))
        by_words = {item: vector_of(client, item) for item in ("described", "filed")}
        for user in ("anna", "ben"):
            await interact(client, user, "item-3", "plain", "described", "filed")
        await wait_until_recommended(client, "plain")
        async with asyncio.timeout(20):
            while any(vector_of(client, item) == old for item, old in by_words.items()):
                await asyncio.sleep(0.02)
        by_users = np.array(vector_of(client, "plain"))
        for item, words in by_words.items():
            mixed = 2 * normalize(by_users) + 5 * normalize(np.array(words))
            now = normalize(np.array(vector_of(client, item)))
            np.testing.assert_allclose(now, normalize(mixed), atol=1e-5)


@pytest.mark.usefixtures("modelled")
async def test_the_items_are_bounded_and_those_described_come_before_the_file(serve: Serve) -> None:
    async with serve(max_cold_start_items=2) as client:
        await wait_for_delta(client)
        await announce(client, "filed")
        for item in ("c", "b", "a"):
            await say(client, item, title="Red wine")
        await wait_until_recommended(client, "a")
        assert vector_of(client, "b") is not None
        assert vector_of(client, "c") is None
        assert vector_of(client, "filed") is None


@pytest.mark.usefixtures("modelled")
async def test_every_process_offers_it_soon(
    settings: Callable[..., Settings], tcp: RedisServer
) -> None:
    chosen = settings(redis_url=tcp.url)
    async with served(chosen) as (first, _), served(chosen) as (second, _):
        await say(first, "new", title="Red wine")
        async with asyncio.timeout(5):
            await wait_for_vector(second, "new", Details("Red wine"))
            await wait_for_vector(first, "new", Details("Red wine"))
        async with served(chosen) as (third, _):
            await wait_for_vector(third, "new", Details("Red wine"))


async def test_a_release_without_the_model_offers_what_the_file_has(
    serve: Serve, publish: Publish
) -> None:
    add_new_items(publish(), {"filed": Details("Filed")})
    async with serve() as client:
        await wait_for_delta(client)
        await say(client, "new", title="Red wine")
        await say(client, "filed", title="Red wine")
        await wait_for_delta(client)
        assert "filed" in await recommended(client)
        assert vector_of(client, "new") is None

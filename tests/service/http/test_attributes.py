"""POST /recommend: filters by attribute, and attributes beside each candidate."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.release.attributes import write_attributes
from index.release.catalog import read_catalog, write_catalog
from index.release.manifest import (
    ATTRIBUTES,
    CATALOG,
    digest,
    read_manifest,
    write_manifest,
)
from index.retrieval.attributes import columns_of
from index.retrieval.details import Value
from tests.service.application import state_behind

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
pytestmark = pytest.mark.anyio

SEQUENCE = ["item-3", "item-9", "item-1"]
ITEMS = 40


def attributes(row: int) -> dict[str, Value]:
    found: dict[str, Value] = {"price": float(row), "stock": row % 2 == 0}
    return found | ({"locale": ("de", "at")} if row % 3 == 0 else {})


@pytest.fixture(autouse=True)
def attributes_in_the_release(publish: Callable[[], Path]) -> None:
    folder = publish()
    catalog = read_catalog(folder / CATALOG)
    titles = [f"Title {row}" for row in range(1, ITEMS + 1)]
    write_catalog(folder / CATALOG, replace(catalog, titles=titles))
    columns = columns_of([attributes(row) for row in range(1, ITEMS + 1)])
    write_attributes(folder / ATTRIBUTES, columns)
    manifest = read_manifest(folder)
    changed = {name: digest(folder / name) for name in (CATALOG, ATTRIBUTES)}
    files = {**manifest.files, **changed}
    write_manifest(folder, manifest.model_copy(update={"files": files}))


async def recommend(client: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    response = await client.post("/recommend", json={"k": 100, **body})
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


def row_of(item: dict[str, Any]) -> int:
    return int(item["item_id"].removeprefix("item-"))


@pytest.mark.parametrize("sequence", [SEQUENCE, []], ids=["interests", "popular"])
async def test_only_items_with_the_attributes_are_candidates(
    serve: Serve, sequence: list[str]
) -> None:
    wanted = {"all": [{"price": {"lte": 30}}, {"stock": True}], "not": [{"locale": {"in": ["at"]}}]}
    async with serve() as client:
        ranking = await recommend(client, sequence=sequence)
        items = await recommend(client, sequence=sequence, filter=wanted)
        categories = {"deny": ["category 2"]}
        both = await recommend(client, sequence=sequence, filter=wanted, categories=categories)
        nothing = await recommend(client, sequence=sequence, filter={"all": [{"colour": "red"}]})
        everything = await recommend(client, sequence=sequence, filter={})

    allowed = [i for i in ranking if row_of(i) <= 30 and row_of(i) % 2 == 0 and row_of(i) % 3]
    assert items == allowed
    assert both == [item for item in allowed if row_of(item) % 4 != 2]
    assert nothing == []
    assert everything == ranking


async def test_the_named_attributes_are_beside_each_candidate(serve: Serve) -> None:
    names = ["title", "price", "locale"]
    requests = [
        {"sequence": SEQUENCE, "k": 40, "include": names},
        {"sequence": [], "k": 2, "include": ["price"], "filter": {"all": [{"price": 7}]}},
        {"sequence": [], "k": 1},
    ]
    async with serve() as client:
        items = await recommend(client, **requests[0])
        response = await client.post("/recommend/batch", json={"requests": requests})

    assert len(items) == ITEMS - len(SEQUENCE)
    for item in items:
        row = row_of(item)
        locale = ["de", "at"] if row % 3 == 0 else None
        expected = {"title": f"Title {row}", "price": row, "locale": locale}
        assert item["attributes"] == expected
    first, second, third = response.json()["answers"]
    assert first["items"] == items
    assert [item["attributes"] for item in second["items"]] == [{"price": 7}]
    assert "attributes" not in third["items"][0]


async def test_attributes_that_no_item_has_are_named(serve: Serve) -> None:
    request = {"sequence": SEQUENCE, "k": 1, "include": ["colour", "title", "brnd"]}
    async with serve() as client:
        answer = (await client.post("/recommend", json=request)).json()
        batch = await client.post("/recommend/batch", json={"requests": [request]})
        await client.put("/items/item-3", json={"attributes": {"colour": "red", "brnd": "x"}})
        await state_behind(client).item_details.poll()
        then = (await client.post("/recommend", json=request)).json()
    for each in (answer, *batch.json()["answers"]):
        assert each["unknown_attributes"] == ["colour", "brnd"]
    [item] = answer["items"]
    assert item["attributes"]["brnd"] is None
    assert "unknown_attributes" not in then


async def test_while_details_cannot_be_read_all_names_may_be_right(serve: Serve) -> None:
    async with serve(redis_url="redis://127.0.0.1:1") as client:
        request = {"sequence": SEQUENCE, "k": 1, "include": ["colour"]}
        answer = (await client.post("/recommend", json=request)).json()
    assert answer["items"][0]["attributes"] == {"colour": None}
    assert "unknown_attributes" not in answer


@pytest.mark.parametrize(
    "wanted",
    [
        {"all": [{}]},
        {"all": [{"price": {}}]},
        {"all": [{"price": {"lte": "50"}}]},
        {"all": [{"price": {"in": []}}]},
        {"all": [{"price": None}]},
        {"all": [{"price": {"below": 5}}]},
        {"all": {"price": 5}},
        {"any": []},
        {"all": [{"price": 5}] * 33},
    ],
)
async def test_an_invalid_filter_is_refused(serve: Serve, wanted: Any) -> None:
    async with serve() as client:
        response = await client.post("/recommend", json={"sequence": [], "filter": wanted})
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "invalid_request"

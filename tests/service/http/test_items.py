"""GET /items/{item_id}/similar: the nearest items, for ids of any characters."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from index.release.manifest import RELEASES
from index.release.reading import open_release
from index.retrieval.catalog import Catalog
from index.retrieval.retriever import Retriever
from service.app import create_app
from service.settings import Settings

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
pytestmark = pytest.mark.anyio

UNUSUAL_IDS = ["a/b", "/", "//x//", "ä ö/ü", "100%", "%2F", "a?b#c", "similar", "x/similar", "日本"]


async def test_the_nearest_items_do_not_include_the_item(serve: Serve, root: Path) -> None:
    async with serve() as client:
        response = await client.get("/items/item-7/similar?k=5")
        unlimited = await client.get("/items/item-7/similar")

    retriever = open_release(root / RELEASES / "first").retriever
    result = retriever.similar("item-7", 5)
    assert result is not None
    rows, scores, _ = result
    assert response.json() == {
        "items": [
            {"item_id": retriever.catalog.id(row), "score": pytest.approx(score)}
            for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
        ],
        "release": "first",
    }
    ids = {item["item_id"] for item in unlimited.json()["items"]}
    assert ids == {f"item-{row}" for row in range(1, 41)} - {"item-7"}


@pytest.mark.parametrize("item", ["item-0", "ITEM-7", " item-7", "a/b", "日本", "é" * 200])
async def test_an_unknown_item_gets_404(serve: Serve, item: str) -> None:
    async with serve() as client:
        response = await client.get(f"/items/{quote(item, safe='')}/similar")

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_item"
    assert "not an item of the release first" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("k=0", "greater than or equal to 1; given '0'"),
        ("k=1001", "less than or equal to 1000; given '1001'"),
        ("k=many", "valid integer, unable to parse string as an integer; given 'many'"),
        ("k=", "k"),
    ],
)
async def test_an_invalid_k_is_rejected(serve: Serve, query: str, message: str) -> None:
    async with serve() as client:
        response = await client.get(f"/items/item-7/similar?{query}")

    assert response.status_code == 422
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == "invalid_request"
    assert message in error["message"]
    assert error["problems"][0]["where"] == "query.k"


async def test_an_id_of_any_characters_is_found(
    settings: Callable[..., Settings], publish: Callable[..., Path]
) -> None:
    publish()
    app = create_app(settings())
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost"
        ) as client,
    ):
        live = app.state.service.live
        await live.refresh()
        live.release = replace(live.release, retriever=renamed(live.release.retriever))
        for item in UNUSUAL_IDS:
            response = await client.get(f"/items/{quote(item, safe='')}/similar?k=3")
            assert response.status_code == 200, item
            assert len(response.json()["items"]) == 3
        unencoded_slash = await client.get("/items/a/b/similar?k=3")
        assert unencoded_slash.status_code == 200


def renamed(retriever: Retriever) -> Retriever:
    """The retriever with unusual ids for its first items."""
    catalog = retriever.catalog
    ids = [*UNUSUAL_IDS, *catalog.ids[len(UNUSUAL_IDS) :]]
    return replace(
        retriever,
        catalog=Catalog(ids, np.asarray(catalog.popularity), catalog.categories, catalog.titles),
    )

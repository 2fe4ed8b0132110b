"""POST /recommend: filters, diversity, explanations and the metrics of interests."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.release.manifest import RELEASES
from index.release.reading import open_release
from index.retrieval.filters import CategoryFilter
from index.retrieval.query import Query

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
pytestmark = pytest.mark.anyio

SEQUENCE = ["item-3", "item-9", "item-1"]
ITEMS = [f"item-{row}" for row in range(1, 41)]


async def recommend(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/recommend", json=body)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


def ids(content: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in content["items"]]


def category(item: str) -> int:
    return int(item.removeprefix("item-")) % 4  # 0 is none


def expected(root: Path, **query: Any) -> list[str]:
    retriever = open_release(root / RELEASES / "first").retriever
    [answer] = retriever.recommend([Query(SEQUENCE, **query)])
    return [retriever.catalog.id(int(row)) for row in answer.rows]


async def test_excluded_items_are_replaced_by_the_next(serve: Serve) -> None:
    async with serve() as client:
        ranking = ids(await recommend(client, sequence=SEQUENCE, k=1000))
        excluded = [*ranking[1:4], "unknown", ranking[1]]
        content = await recommend(client, sequence=SEQUENCE, k=5, exclude=excluded)
        popular = await recommend(client, sequence=[], k=3, exclude=["item-1", "item-3"])
        last = await recommend(client, sequence=[], k=3, exclude=[*ITEMS[:38], *["?"] * 962])

    assert ids(content) == [ranking[0], *ranking[4:8]]
    assert ids(popular) == ["item-2", "item-4", "item-5"]
    assert ids(last) == ["item-39", "item-40"]


@pytest.mark.parametrize("sequence", [SEQUENCE, [], ["unknown"]])
async def test_categories_are_allowed_or_denied(serve: Serve, sequence: list[str]) -> None:
    async with serve() as client:
        ranking = ids(await recommend(client, sequence=sequence, k=1000))
        for categories, passes in [
            ({"allow": ["category 1", "category 2", "unknown"]}, {1, 2}),
            ({"deny": ["category 1", "unknown"]}, {0, 2, 3}),
            ({"allow": ["category 1", "category 2"], "deny": ["category 2"]}, {1}),
            ({"allow": ["unknown"]}, set()),
            ({"deny": []}, {0, 1, 2, 3}),
            ({}, {0, 1, 2, 3}),
            (None, {0, 1, 2, 3}),
        ]:
            content = await recommend(client, sequence=sequence, k=6, categories=categories)
            assert ids(content) == [item for item in ranking if category(item) in passes][:6]
            assert content["source"] == ("interests" if sequence == SEQUENCE else "popular")


async def test_diversity_is_passed_to_the_retriever(serve: Serve, root: Path) -> None:
    async with serve() as client:
        plain = ids(await recommend(client, sequence=SEQUENCE, k=8))
        zero = ids(await recommend(client, sequence=SEQUENCE, k=8, diversity=0))
        half = ids(await recommend(client, sequence=SEQUENCE, k=8, diversity=0.5))
        full = ids(await recommend(client, sequence=SEQUENCE, k=8, diversity=1))

    assert plain == zero
    assert half == expected(root, k=8, diversity=0.5)
    assert sorted(map(category, full)) == [0, 0, 1, 1, 2, 2, 3, 3]


async def test_all_filters_work_together(serve: Serve, root: Path) -> None:
    body = {"k": 7, "exclude": ["item-2", "item-5"], "diversity": 0.3, "exclude_seen": False}
    async with serve() as client:
        content = await recommend(
            client, sequence=SEQUENCE, categories={"deny": ["category 3"]}, **body
        )

    assert ids(content) == expected(root, categories=CategoryFilter(None, ["category 3"]), **body)


async def test_an_explanation_is_added_on_request(serve: Serve) -> None:
    async with serve() as client:
        plain = await recommend(client, sequence=SEQUENCE, k=10)
        explained = await recommend(client, sequence=SEQUENCE, k=10, explain=True)
        popular = await recommend(client, sequence=[], k=10, explain=True)

    assert "interests" not in plain
    assert ids(plain) == ids(explained)
    assert sum(interest["share"] for interest in explained["interests"]) == pytest.approx(1)
    assert len(explained["interests"]) == 3
    for interest in explained["interests"]:
        assert {item["item_id"] for item in interest["attended"]} == set(SEQUENCE)
        weights = [item["weight"] for item in interest["attended"]]
        assert sum(weights) == pytest.approx(1)
        assert weights == sorted(weights, reverse=True)
    for before, item in zip(plain["items"], explained["items"], strict=True):
        assert item["scores"][item["interest"]] == item["score"]
        assert {name: item[name] for name in before} == {**before, "score": item["score"]}
    assert popular["interests"] == []
    assert all("scores" not in item for item in popular["items"])


async def test_an_invalid_filter_is_rejected(serve: Serve) -> None:
    async with serve() as client:
        for body, message in [
            ({"exclude": ["a"] * 1001}, "exclude: List should have at most 1000 items"),
            ({"exclude": "item-1"}, "exclude: Input should be a valid array"),
            ({"exclude": [""]}, "exclude.0"),
            ({"exclude": ["é" * 300]}, "exclude: Value error, an id of 600 bytes"),
            ({"categories": []}, "categories"),
            ({"categories": {"allow": []}}, "categories.allow: List should have at least 1 item"),
            ({"categories": {"allow": "a"}}, "categories.allow: Input should be a valid array"),
            ({"categories": {"deny": [1]}}, "categories.deny.0"),
            ({"categories": {"only": ["a"]}}, "categories.only: Extra inputs"),
            ({"diversity": 1.01}, "diversity: Input should be less than or equal to 1"),
            ({"diversity": -0.1}, "greater than or equal to 0; given -0.1"),
            ({"diversity": "0.5"}, "diversity: Input should be a valid number"),
            ({"diversity": True}, "diversity: Input should be a valid number"),
            ({"explain": 1}, "explain: Input should be a valid boolean"),
        ]:
            response = await client.post("/recommend", json={"sequence": [], **body})
            assert response.status_code == 422, body
            assert message in response.json()["error"]["message"]
        text = b'{"sequence": [], "diversity": NaN}'
        assert (await client.post("/recommend", content=text)).status_code == 422


async def test_oov_and_interest_metrics_are_measured(serve: Serve) -> None:
    async with serve(interest_overlap_sample_rate=1.0) as client:
        await recommend(client, sequence=[*SEQUENCE, "unknown"], k=5)
        await recommend(client, sequence=["unknown"])
        await recommend(client, sequence=[])
        text = (await client.get("/metrics")).text

    assert "re4_history_oov_ratio_count 2.0" in text, "empty histories are excluded"
    assert 're4_history_oov_ratio_bucket{le="0.2"} 0.0' in text
    assert 're4_history_oov_ratio_bucket{le="0.3"} 1.0' in text
    assert "re4_history_oov_ratio_sum 1.25" in text
    assert "re4_top_interest_share_count 1.0" in text
    assert 're4_top_interest_share_bucket{le="0.3"} 0.0' in text, (
        "one of three interests has at least a third"
    )
    assert "re4_interest_overlap_ratio_count 1.0" in text
    assert 're4_interest_overlap_ratio_bucket{le="0.3"} 0.0' in text


async def test_the_overlap_is_measured_only_on_the_sample(serve: Serve) -> None:
    async with serve(interest_overlap_sample_rate=0.0) as client:
        await recommend(client, sequence=SEQUENCE)
        text = (await client.get("/metrics")).text

    assert "re4_interest_overlap_ratio_count 0.0" in text
    assert "re4_top_interest_share_count 1.0" in text

"""POST /recommend: boosts, the quota of an interest, minimums of categories."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
pytestmark = pytest.mark.anyio

SEQUENCE = ["item-3", "item-9", "item-1"]
EVERYTHING: dict[str, Any] = {"not": [{"colour": "red"}]}


async def recommend(client: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    response = await client.post("/recommend", json={"sequence": SEQUENCE, "k": 8, **body})
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


async def test_a_boost_is_added_to_the_score_and_stands_beside_it(
    serve: Serve, publish: Callable[[], Path]
) -> None:
    publish()
    async with serve() as client:
        plain, pool = await recommend(client), await recommend(client, k=32)
        raised = await recommend(client, boost=[{"filter": EVERYTHING, "add": 0.5}])
        popular = await recommend(client, sequence=[], boost=[{"filter": EVERYTHING, "add": -1}])
    unit = pool[0]["score"] - pool[-1]["score"]
    assert [item["item_id"] for item in raised] == [item["item_id"] for item in plain]
    for item, before in zip(raised, plain, strict=True):
        assert item["boost"] == pytest.approx(0.5 * unit, rel=1e-5)
        assert item["score"] - item["boost"] == pytest.approx(before["score"], rel=1e-4)
    assert "boost" not in plain[0]
    assert all(item["boost"] < 0 for item in popular)


async def test_quota_and_minimums_apply_to_an_answer_and_to_a_batch(
    serve: Serve, publish: Callable[[], Path]
) -> None:
    publish()
    async with serve() as client:
        quota = await recommend(client, k=4, interest_quota=2)
        minimum = await recommend(client, min_per_category={"category 1": 8})
        only = await recommend(client, categories={"allow": ["category 1"]})
        requests = [
            {"sequence": SEQUENCE, "k": 4, "interest_quota": 2},
            {"sequence": SEQUENCE, "k": 8, "min_per_category": {"category 1": 9}},
            {"sequence": SEQUENCE, "k": 8, "min_per_category": {"category 1": 8}},
        ]
        response = await client.post("/recommend/batch", json={"requests": requests})
    assert max(Counter(item["interest"] for item in quota).values()) <= 2
    assert minimum == only
    first, second, third = response.json()["answers"]
    assert first["items"] == quota
    assert "9 items in sum; at most k, 8" in second["error"]["message"]
    assert third["items"] == minimum


@pytest.mark.parametrize(
    "rules",
    [
        {"boost": [{"add": 1}]},
        {"boost": [{"filter": {}, "add": 101}]},
        {"boost": [{"filter": {}, "add": "1"}]},
        {"boost": [{"filter": {"all": [{}]}, "add": 1}]},
        {"boost": [{"filter": {}, "add": 1}] * 6},
        {"interest_quota": 0},
        {"min_per_category": {"category 1": 0}},
        {"min_per_category": {"": 1}},
        {"min_per_category": {"category 1": 5, "category 2": 4}},
    ],
)
async def test_invalid_rules_are_refused(
    serve: Serve, publish: Callable[[], Path], rules: dict[str, Any]
) -> None:
    publish()
    async with serve() as client:
        response = await client.post("/recommend", json={"sequence": [], "k": 8, **rules})
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "invalid_request"

"""POST /recommend: boosts, the quota of an interest, minimums of categories and of new items."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.retrieval.details import Details
from tests.service.store.test_cold_start import add_new_items, announce, wait_for_delta

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


@pytest.fixture
def described(publish: Callable[[], Path]) -> None:
    """Ten items have vectors so short, and all known items so much better, that none is found."""
    folder = publish()
    add_new_items(folder, {f"new-{at}": Details(categories=["new"]) for at in range(10)}, 1e-6)


@pytest.mark.usefixtures("described")
async def test_new_items_have_places_by_request_or_by_setting(serve: Serve) -> None:
    everything = [f"new-{at}" for at in range(10)]
    async with serve(min_new_items=3) as client, serve() as without:
        for each in (client, without):
            await wait_for_delta(each)
            await announce(each, *everything)
        assert new_of(await recommend(without)) == []
        asked = await recommend(without, min_new_items=2)
        by_setting = await recommend(client)
        assert len(new_of(asked)) == 2
        assert len(new_of(by_setting)) == 3
        assert new_of(by_setting)[:2] == new_of(asked)
        assert [item["score"] for item in asked] == sorted(
            (i["score"] for i in asked), reverse=True
        )
        assert new_of(await recommend(client, min_new_items=0)) == []
        full = await recommend(client, k=4, min_per_category={"category 1": 2})
        assert len(new_of(full)) == 2, "as far as there is room"
        assert len(new_of(await recommend(client, sequence=[]))) == 3, "popular items too"
        body = {"requests": [{"sequence": SEQUENCE, "k": 8}] * 2}
        answers = (await client.post("/recommend/batch", json=body)).json()["answers"]
        assert [answer["items"] for answer in answers] == [by_setting] * 2


@pytest.mark.usefixtures("described")
async def test_places_of_new_items_obey_pages_caps_and_filters(serve: Serve) -> None:
    async with serve(min_new_items=4) as client:
        await wait_for_delta(client)
        await announce(client, *(f"new-{at}" for at in range(10)))
        shown, cursor = [], "start"
        for _ in range(3):
            body = {"sequence": SEQUENCE, "k": 8, "cursor": cursor}
            page = (await client.post("/recommend", json=body)).json()
            shown.append(new_of(page["items"]))
            cursor = page["cursor"]
        assert [len(each) for each in shown] == [4, 4, 2]
        assert len({item for each in shown for item in each}) == 10
        capped = {"user_id": "anna", "frequency_cap": {"times": 1}}
        first, second = [new_of(await recommend(client, **capped)) for _ in range(2)]
        assert (len(first), len(second)) == (4, 4)
        assert not set(first) & set(second)
        assert new_of(await recommend(client, categories={"deny": ["new"]})) == []


def new_of(items: list[dict[str, Any]]) -> list[str]:
    return [item["item_id"] for item in items if item.get("new")]


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
        {"min_new_items": -1},
        {"min_new_items": 9},
        {"min_per_category": {"category 1": 5}, "min_new_items": 4},
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

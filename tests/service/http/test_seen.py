"""Kinds of events over HTTP, and requests that leave out what a user has met."""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

DAY_S = 86_400


async def add(client: httpx.AsyncClient, *given: tuple[int, str, float]) -> None:
    """Events of anna: item, kind, days ago."""
    now = time.time()
    body = [
        {
            "user_id": "anna",
            "item_id": f"item-{row}",
            "event": kind,
            "timestamp": now - days * DAY_S,
        }
        for row, kind, days in given
    ]
    response = await client.post("/events", json=body)
    assert response.json() == {"accepted": len(given), "duplicates": 0, "outdated": 0}


async def left_out(client: httpx.AsyncClient, **body: Any) -> set[int]:
    """Of the 40 items, those that are not recommended to anna."""
    response = await client.post("/recommend", json={"user_id": "anna", "k": 1000, **body})
    assert response.status_code == 200, response.text
    return {*range(1, 41)} - {int(item["item_id"][5:]) for item in response.json()["items"]}


async def test_what_was_met_is_left_out_longer_than_it_is_in_the_history(serve: Serve) -> None:
    async with serve(history_max_length=2) as client:
        await add(
            client,
            *((1, "view", 4), (2, "dislike", 3.5), (3, "view", 3), (4, "cart", 2)),
            *((5, "impression", 1), (4, "return", 0.5)),
        )
        history = (await client.get("/users/anna/history")).json()
        assert history == {"items": ["item-1", "item-3"], "count": 2}
        assert await left_out(client) == {1, 2, 3, 4}
        assert await left_out(client, exclude_seen=True) == {1, 2, 3, 4}
        assert await left_out(client, exclude_seen=False) == set()
        assert (await client.delete("/users/anna/history")).json() == {"forgotten": 2}
        assert await left_out(client) == set()


async def test_only_some_of_what_was_met_may_be_left_out(serve: Serve) -> None:
    async with serve() as client:
        await add(client, (1, "purchase", 100), (2, "purchase", 10), (3, "view", 5))
        purchases = {"kinds": ["purchase"]}
        assert await left_out(client, exclude_seen=purchases) == {1, 2}
        assert await left_out(client, exclude_seen={**purchases, "days": 90}) == {2}
        assert await left_out(client, exclude_seen={"days": 90}) == {2, 3}
        assert await left_out(client, exclude_seen={"kinds": ["never"]}) == set()
        assert await left_out(
            client, exclude_seen=purchases, exclude=["item-9"], sequence=["item-4"]
        ) == {1, 2, 9}


async def test_in_a_batch_each_request_says_it_for_itself(serve: Serve) -> None:
    async with serve() as client:
        await add(client, (1, "purchase", 1), (2, "view", 1))
        wanted: list[Any] = [True, False, {"kinds": ["view"]}]
        requests = [{"user_id": "anna", "k": 40, "exclude_seen": seen} for seen in wanted]
        response = await client.post("/recommend/batch", json={"requests": requests})
        assert [len(answer["items"]) for answer in response.json()["answers"]] == [38, 40, 39]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"exclude_seen": {}}, "neither kinds nor days; give one, or both, or true"),
        ({"exclude_seen": {"kinds": []}}, "at least 1 item"),
        ({"exclude_seen": {"days": 0}}, "greater than 0"),
        ({"exclude_seen": {"weeks": 1}}, "Extra inputs are not permitted"),
        ({"exclude_seen": None}, "valid boolean"),
        (
            {"user_id": None, "sequence": ["item-1"], "exclude_seen": {"days": 1}},
            "exclude_seen: kinds and days are those of stored events; give user_id",
        ),
    ],
)
async def test_what_is_not_allowed_is_refused(
    serve: Serve, body: dict[str, Any], problem: str
) -> None:
    async with serve() as client:
        given = {"user_id": "anna", **body}
        response = await client.post("/recommend", json=given)
    assert response.status_code == 422
    assert problem in response.json()["error"]["message"]

"""Impression ids, caps and cursors over HTTP."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest

from tests.evidence.redis_servers import RedisServer

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

ITEMS = 40
UNREACHABLE = "redis://127.0.0.1:1"


async def ask(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/recommend", json=body)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


async def test_each_answer_has_an_id_of_its_own(serve: Serve) -> None:
    async with serve() as client:
        answers = [await ask(client, sequence=["item-1"], k=2) for _ in range(3)]
        requests = [{"sequence": ["item-1"]}, {"user_id": "anna"}]
        batch = (await client.post("/recommend/batch", json={"requests": requests})).json()
        answers += batch["answers"]
    assert len({answer["impression_id"] for answer in answers}) == 5
    assert all("cursor" not in answer for answer in answers)


async def test_events_may_name_it(serve: Serve, tcp: RedisServer) -> None:
    event = {"user_id": "anna", "item_id": "item-3", "event": "view"}
    async with serve(redis_url=tcp.url) as client:
        impression = (await ask(client, user_id="anna", k=3))["impression_id"]
        await client.post("/events", json={**event, "impression_id": impression})
        refused = await client.post("/events", json={**event, "impression_id": "a:b"})
    assert refused.status_code == 422
    [stream] = tcp.execute("KEYS", "re4:*:events")
    [[_, fields]] = tcp.execute("XRANGE", stream, "-", "+")
    assert fields[b"impression_id"] == impression.encode()


async def test_a_cap_holds_from_answer_to_answer(serve: Serve) -> None:
    request = {"user_id": "anna", "k": 10, "frequency_cap": {"times": 2, "hours": 1}}
    async with serve() as client:
        first, second, third = [ids(await ask(client, **request)) for _ in range(3)]
        assert first == second
        assert not {*third} & {*first}
        assert ids(await ask(client, user_id="anna", k=10)) == first, "without a cap"
        events = [{"user_id": "anna", "item_id": item, "event": "impression"} for item in third]
        await client.post("/events", json=events)
        assert not {*ids(await ask(client, **request))} & {*first, *third}
        await client.delete("/users/anna/history")
        assert ids(await ask(client, **request)) == first


async def test_an_answer_that_is_reported_counts_once(serve: Serve) -> None:
    request = {"user_id": "anna", "k": 10, "frequency_cap": {"times": 2}}
    async with serve() as client:
        answer = await ask(client, **request)
        events = [
            {
                "user_id": "anna",
                "item_id": item,
                "event": "impression",
                "impression_id": answer["impression_id"],
            }
            for item in ids(answer)
        ]
        await client.post("/events", json=events)
        assert ids(await ask(client, **request)) == ids(answer)


async def test_a_cap_holds_for_answers_at_once(serve: Serve) -> None:
    request = {"user_id": "anna", "k": 7, "frequency_cap": {"times": 1}}
    async with serve() as client:
        shown: list[str] = []
        for _ in range(6):
            answers = await asyncio.gather(*(ask(client, **request) for _ in range(5)))
            batch = {"requests": [request, request]}
            response = await client.post("/recommend/batch", json=batch)
            for answer in [*answers, *response.json()["answers"]]:
                shown += ids(answer)
    assert sorted(shown) == sorted({*shown})
    assert len(shown) == ITEMS


async def test_pages_go_on_without_repeats(serve: Serve) -> None:
    async with serve() as client:
        shown: list[str] = []
        request: dict[str, Any] = {"user_id": "anna", "k": 12, "exclude_seen": False}
        cursor, pages = "start", []
        while cursor is not None:
            page = await ask(client, **request, cursor=cursor)
            again = await ask(client, **request, cursor=cursor)
            assert ids(again) == ids(page), "the same cursor gives the same page"
            pages.append(page)
            cursor = page["cursor"]
            shown += ids(page)
            event = {"user_id": "anna", "item_id": f"item-{len(shown)}"}
            await client.post("/events", json=event)
    assert [len(page["items"]) for page in pages] == [12, 12, 12, 4]
    assert sorted(shown) == sorted({*shown})


async def test_pages_of_a_sequence_and_in_a_batch(serve: Serve) -> None:
    async with serve() as client:
        first = await ask(client, sequence=["item-1"], k=5, cursor="start")
        requests = [
            {"sequence": ["item-1"], "k": 5, "cursor": first["cursor"]},
            {"sequence": ["item-1"], "k": 5, "cursor": "A" * 22 + ".1"},
            {"sequence": ["item-1"], "k": 5},
        ]
        response = await client.post("/recommend/batch", json={"requests": requests})
        second, expired, plain = response.json()["answers"]
        whole = ids(await ask(client, sequence=["item-1"], k=10))
    assert ids(first) + ids(second) == whole
    assert "begin again with 'start'" in expired["error"]["message"]
    assert ids(plain) == ids(first)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"user_id": "anna", "cursor": "A" * 22 + ".1"}, "cursor: expired, or of no answer"),
        ({"user_id": "anna", "cursor": "next"}, "should match pattern"),
        ({"user_id": "anna", "cursor": "A" * 22 + ".0"}, "should match pattern"),
        ({"user_id": "anna", "frequency_cap": {"times": 0}}, "greater than or equal to 1"),
        ({"user_id": "anna", "frequency_cap": {"times": 21}}, "less than or equal to 20"),
        ({"user_id": "anna", "frequency_cap": {"hours": 1}}, "frequency_cap.times"),
        ({"sequence": [], "frequency_cap": {"times": 1}}, "give user_id"),
    ],
)
async def test_what_is_not_allowed_is_refused(
    serve: Serve, body: dict[str, Any], problem: str
) -> None:
    async with serve() as client:
        response = await client.post("/recommend", json=body)
    assert response.status_code == 422
    assert problem in response.json()["error"]["message"]


async def test_without_redis_answers_are_degraded_and_further_pages_refused(serve: Serve) -> None:
    async with serve(redis_url=UNREACHABLE) as client:
        capped = await ask(client, user_id="anna", k=3, frequency_cap={"times": 1})
        first = await ask(client, sequence=["item-1"], k=3, cursor="start")
        cursor = "A" * 22 + ".1"
        response = await client.post("/recommend", json={"sequence": ["item-1"], "cursor": cursor})
    assert (capped["degraded"], len(capped["items"])) == (True, 3)
    assert (first["degraded"], first["cursor"], len(first["items"])) == (True, None, 3)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "history_unavailable"

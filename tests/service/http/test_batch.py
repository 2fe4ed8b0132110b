"""POST /recommend/batch: each request is handled as if sent alone; none affects the others."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest

from index.retrieval.query import Query
from index.retrieval.retriever import Retriever
from service.store.histories import HistoryStore, StoredUser

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
pytestmark = pytest.mark.anyio

SLOW = {"deadline_ms": 60_000}  # for a busy machine

REQUESTS: list[dict[str, Any]] = [
    {"sequence": ["item-3", "item-9"], "k": 5},
    {"sequence": [], "k": 3},
    {"user_id": "anna", "k": 4, "exclude": ["item-1"]},
    {"sequence": ["item-3"], "k": 6, "categories": {"deny": ["category 1"]}, "explain": True},
    {"user_id": "anna", "sequence": ["item-8"], "k": 2, "diversity": 0.5},
    {"user_id": "nobody", "sequence": ["unknown"], "k": 1},
]


async def recommend_batch(client: httpx.AsyncClient, requests: list[Any]) -> list[dict[str, Any]]:
    response = await client.post("/recommend/batch", json={"requests": requests})
    assert response.status_code == 200, response.text
    answers: list[dict[str, Any]] = response.json()["answers"]
    return answers


async def recommend(client: httpx.AsyncClient, request: Any) -> dict[str, Any]:
    content: dict[str, Any] = (await client.post("/recommend", json=request)).json()
    return content


def comparable(answer: dict[str, Any]) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """The items, whose scores may be rounded differently, and the other fields."""
    items = [
        (item["item_id"], pytest.approx(item["score"], rel=1e-5), item["interest"])
        for item in answer["items"]
    ]
    other_fields = {
        name: answer[name] for name in ("release", "source", "degraded", "unknown_items")
    }
    return items, other_fields


async def test_each_request_gets_the_answer_it_gets_alone(serve: Serve) -> None:
    async with serve(**SLOW) as client:
        await client.post("/events", json={"user_id": "anna", "item_id": "item-5"})
        batched = await recommend_batch(client, REQUESTS)
        alone = [await recommend(client, request) for request in REQUESTS]

    for answer, expected in zip(batched, alone, strict=True):
        assert comparable(answer) == comparable(expected)
        assert answer.keys() == expected.keys()


async def test_the_error_of_an_invalid_request_is_in_its_place(serve: Serve) -> None:
    invalid: list[tuple[Any, str]] = [
        ({}, "body: Value error, neither user_id nor sequence"),
        ({"sequence": ["a"], "k": 0}, "k: Input should be greater than or equal to 1; given 0"),
        ({"sequence": ["a"] * 1001}, "sequence: List should have at most 1000 items"),
        ({"sequence": [], "categories": {"allow": []}}, "categories.allow"),
        ("item-1", "body"),
        (None, "body"),
        ([{"sequence": []}], "body"),
    ]
    valid = {"sequence": ["item-3"], "k": 2}
    async with serve(**SLOW) as client:
        expected = await recommend(client, valid)
        batched = await recommend_batch(
            client, [part for request, _ in invalid for part in (request, valid)]
        )
        all_invalid = await recommend_batch(client, [request for request, _ in invalid])
        single = await recommend(client, {"sequence": ["a"], "k": 0})

    assert all(comparable(answer) == comparable(expected) for answer in batched[1::2])
    for (_, message), answer, repeated in zip(invalid, batched[::2], all_invalid, strict=True):
        assert answer == repeated
        assert answer["error"]["code"] == "invalid_request"
        assert message in answer["error"]["message"]
    assert batched[2] == single, "the same error as alone"


async def test_all_requests_are_one_batch_for_the_engine_and_one_for_redis(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    reads: list[str] = []
    original_answers, original_read = Retriever.answers, HistoryStore.read_user

    def answers(self: Retriever, queries: list[Query], *args: Any) -> Any:
        sizes.append(len(queries))
        return original_answers(self, queries, *args)

    async def read(self: HistoryStore, user_id: str, *args: Any) -> StoredUser:
        reads.append(user_id)
        return await original_read(self, user_id, *args)

    monkeypatch.setattr(Retriever, "answers", answers)
    monkeypatch.setattr(HistoryStore, "read_user", read)
    users = [{"user_id": f"user-{number}", "k": 1} for number in range(256)]
    async with serve(**SLOW, max_batch_size=4) as client:
        sizes.clear()  # those of the release's canary queries
        results = await recommend_batch(client, users)

    assert sizes == [256]
    assert reads == [user["user_id"] for user in users]
    assert {answer["release"] for answer in results} == {"first"}


async def test_a_query_that_fails_affects_no_other(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = Retriever.answers

    def answers(self: Retriever, queries: list[Query], *args: Any) -> Any:
        if any(query.k == 13 for query in queries):
            raise ZeroDivisionError
        return original(self, queries, *args)

    monkeypatch.setattr(Retriever, "answers", answers)
    async with serve(**SLOW) as client:
        results = await recommend_batch(client, [{"sequence": [], "k": k} for k in (3, 13, 5)])

    assert [len(answer.get("items", [])) for answer in results] == [3, 0, 5]
    assert results[1]["error"]["code"] == "internal"
    assert "query failed" in caplog.text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "requests: Field required"),
        ({"requests": []}, "at least 1 item"),
        ({"requests": [{"sequence": []}] * 257}, "at most 256 items"),
        ({"requests": {"sequence": []}}, "requests: Input should be a valid array"),
        ({"requests": [{"sequence": []}], "k": 5}, "k: Extra inputs are not permitted"),
        ([{"sequence": []}], "body"),
    ],
)
async def test_an_invalid_batch_is_rejected(serve: Serve, body: Any, message: str) -> None:
    async with serve() as client:
        response = await client.post("/recommend/batch", json=body)

    assert response.status_code == 422
    assert message in response.json()["error"]["message"]


async def test_a_batch_may_be_longer_than_one_request(serve: Serve) -> None:
    request = {"sequence": ["item-1"], "exclude": ["x" * 20] * 600, "k": 1}
    async with serve(**SLOW) as client:
        assert len(await recommend_batch(client, [request] * 256)) == 256


async def test_each_answer_is_counted(serve: Serve) -> None:
    async with serve(**SLOW) as client:
        await recommend_batch(client, [{"sequence": ["item-1"]}, {"sequence": ["unknown"]}, {}])
        text = (await client.get("/metrics")).text

    assert 're4_responses_total{source="interests"} 1.0' in text
    assert 're4_responses_total{source="popular"} 1.0' in text
    assert "re4_history_oov_ratio_count 2.0" in text
    assert 're4_requests_total{route="/recommend/batch",status="200"} 1.0' in text

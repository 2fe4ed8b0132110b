"""POST /recommend/batch: each request as if it came alone, and none spoils the others."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest

from index.retrieval.retriever import Query, Retriever
from service.http.schemas.recommend import RecommendBatch
from service.store.histories import HistoryStore

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
pytestmark = pytest.mark.anyio

SLOW = {"deadline_ms": 60_000}  # the machine may be busy

REQUESTS: list[dict[str, Any]] = [
    {"sequence": ["item-3", "item-9"], "k": 5},
    {"sequence": [], "k": 3},
    {"user_id": "anna", "k": 4, "exclude": ["item-1"]},
    {"sequence": ["item-3"], "k": 6, "categories": {"deny": ["category 1"]}, "explain": True},
    {"user_id": "anna", "sequence": ["item-8"], "k": 2, "diversity": 0.5},
    {"user_id": "nobody", "sequence": ["unknown"], "k": 1},
]


async def answers(client: httpx.AsyncClient, requests: list[Any]) -> list[dict[str, Any]]:
    response = await client.post("/recommend/batch", json={"requests": requests})
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["answers"]
    return found


async def alone(client: httpx.AsyncClient, request: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await client.post("/recommend", json=request)).json()
    return found


def told(answer: dict[str, Any]) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """The items with scores that may be rounded otherwise, and the rest."""
    items = [
        (item["item_id"], pytest.approx(item["score"], rel=1e-5), item["interest"])
        for item in answer["items"]
    ]
    rest = {name: answer[name] for name in ("release", "source", "degraded", "unknown_items")}
    return items, rest


async def test_each_is_answered_as_if_it_came_alone(serve: Serve) -> None:
    async with serve(**SLOW) as client:
        await client.post("/events", json={"user_id": "anna", "item_id": "item-5"})
        together = await answers(client, REQUESTS)
        one_by_one = [await alone(client, request) for request in REQUESTS]

    for answer, wanted in zip(together, one_by_one, strict=True):
        assert told(answer) == told(wanted)
        assert answer.keys() == wanted.keys()


async def test_a_bad_request_has_its_error_in_its_place(serve: Serve) -> None:
    bad: list[tuple[Any, str]] = [
        ({}, "body: Value error, neither user_id nor sequence"),
        ({"sequence": ["a"], "k": 0}, "k: Input should be greater than or equal to 1; given 0"),
        ({"sequence": ["a"] * 1001}, "sequence: List should have at most 1000 items"),
        ({"sequence": [], "categories": {"allow": []}}, "categories.allow"),
        ("item-1", "body"),
        (None, "body"),
        ([{"sequence": []}], "body"),
    ]
    good = {"sequence": ["item-3"], "k": 2}
    async with serve(**SLOW) as client:
        wanted = await alone(client, good)
        together = await answers(client, [part for each, _ in bad for part in (each, good)])
        hopeless = await answers(client, [each for each, _ in bad])
        single = await alone(client, {"sequence": ["a"], "k": 0})

    assert all(told(answer) == told(wanted) for answer in together[1::2])
    for (_, said), answer, again in zip(bad, together[::2], hopeless, strict=True):
        assert answer == again
        assert answer["error"]["code"] == "invalid_request"
        assert said in answer["error"]["message"]
    assert together[2] == single, "the same error as alone"


async def test_all_are_one_batch_of_the_engine_and_one_of_redis(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    reads: list[str] = []
    really, really_read = Retriever.answers, HistoryStore.read

    def asked(self: Retriever, queries: list[Query], *more: Any) -> Any:
        sizes.append(len(queries))
        return really(self, queries, *more)

    async def read(self: HistoryStore, user_id: str) -> list[str]:
        reads.append(user_id)
        return await really_read(self, user_id)

    monkeypatch.setattr(Retriever, "answers", asked)
    monkeypatch.setattr(HistoryStore, "read", read)
    users = [{"user_id": f"user-{number}", "k": 1} for number in range(256)]
    async with serve(**SLOW, max_batch_size=4) as client:
        sizes.clear()  # of what the release was tried with
        found = await answers(client, users)

    assert sizes == [256]
    assert reads == [user["user_id"] for user in users]
    assert {answer["release"] for answer in found} == {"first"}


async def test_a_query_that_breaks_the_retriever_spoils_no_other(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    really = Retriever.answers

    def asked(self: Retriever, queries: list[Query], *more: Any) -> Any:
        if any(query.k == 13 for query in queries):
            raise ZeroDivisionError
        return really(self, queries, *more)

    monkeypatch.setattr(Retriever, "answers", asked)
    async with serve(**SLOW) as client:
        found = await answers(client, [{"sequence": [], "k": k} for k in (3, 13, 5)])

    assert [len(answer.get("items", [])) for answer in found] == [3, 0, 5]
    assert found[1]["error"]["code"] == "internal"
    assert "query failed" in caplog.text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "requests: Field required"),
        ({"requests": []}, "at least 1 item"),
        ({"requests": [{"sequence": []}] * 257}, "at most 256 items"),
        ({"requests": {"sequence": []}}, "requests: Input should be a valid array"),
        ({"requests": [{"sequence": []}], "k": 5}, "k: Extra inputs are not permitted"),
        ([{"sequence": []}], "body"),
    ],
)
async def test_what_is_wrong_with_the_whole_is_told_at_once(
    serve: Serve, body: Any, said: str
) -> None:
    async with serve() as client:
        response = await client.post("/recommend/batch", json=body)

    assert response.status_code == 422
    assert said in response.json()["error"]["message"]


async def test_a_batch_may_be_longer_than_one_request(serve: Serve) -> None:
    request = {"sequence": ["item-1"], "exclude": ["x" * 20] * 600, "k": 1}
    async with serve(**SLOW) as client:
        assert len(await answers(client, [request] * 256)) == 256
        over = await client.post(
            "/recommend/batch", content=b" " * (RecommendBatch.LIMIT_BYTES + 1)
        )

    assert over.status_code == 413
    assert "4,194,304 bytes" in over.json()["error"]["message"]


async def test_each_answer_is_counted(serve: Serve) -> None:
    async with serve(**SLOW) as client:
        await answers(client, [{"sequence": ["item-1"]}, {"sequence": ["unknown"]}, {}])
        text = (await client.get("/metrics")).text

    assert 're4_answers_total{source="interests"} 1.0' in text
    assert 're4_answers_total{source="popular"} 1.0' in text
    assert "re4_unknown_share_count 2.0" in text
    assert 're4_requests_total{route="/recommend/batch",status="200"} 1.0' in text

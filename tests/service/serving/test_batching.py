"""The engine answers in batches, in order, within its limits, and not for disconnected clients."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import httpx
import numpy as np
import pytest

from index.ann.flat import FlatIndex
from index.ann.gpu import GpuIndex
from index.release.reading import Release
from index.retrieval.query import Answer, Query
from index.retrieval.retriever import Retriever
from service.errors import ClientDisconnectedError, NotReadyError, OverloadedError
from service.serving.batching import Engine
from service.serving.outcome import QueryResult
from service.serving.release_loader import ReleaseLoader
from service.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio

Position = tuple[int, Answer]
Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
async def live(root: Path, publish: Publish) -> ReleaseLoader:
    publish()
    live = ReleaseLoader(root, Metrics())
    await live.refresh()
    return live


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[Query]]:
    """The batches that the retriever gets. It raises an error at a query for k = 13."""
    seen: list[list[Query]] = []
    answers = Retriever.answers

    def record(self: Retriever, queries: Sequence[Query], *more: Any) -> Iterator[Position]:
        seen.append(list(queries))
        for position, answer in answers(self, queries, *more):
            if queries[position].k == 13:
                raise ZeroDivisionError
            yield position, answer

    monkeypatch.setattr(Retriever, "answers", record)
    return seen


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer takes 20 ms."""
    answers = Retriever.answers

    def answer_slowly(self: Retriever, *arguments: Any) -> Iterator[Position]:
        for found in answers(self, *arguments):
            end = time.perf_counter() + 0.02
            while time.perf_counter() < end:
                pass
            yield found

    monkeypatch.setattr(Retriever, "answers", answer_slowly)


def engine_of(live: ReleaseLoader, **limits: Any) -> Engine:
    chosen = {"max_queue_size": 10, "max_batch_size": 4, "deadline_s": 1e9}
    return Engine(live, live._metrics, **{**chosen, **limits})


def connected() -> bool:
    """As `is_disconnected` of a client that waits."""
    return False


def query(k: int) -> Query:
    return Query(["item-1"], k)


async def answer_many(engine: Engine, count: int) -> list[QueryResult | BaseException]:
    """The results of `count` queries at once; the first is for 1 item, the last for `count`."""
    requests = [engine.answer(query(k), connected) for k in range(1, count + 1)]
    return await asyncio.gather(*requests, return_exceptions=True)


def rejections(live: ReleaseLoader, reason: str) -> float:
    name = "re4_rejected_requests_total"
    return live._metrics.registry.get_sample_value(name, {"reason": reason}) or 0.0


async def test_queued_queries_are_answered_in_one_batch(
    live: ReleaseLoader, batches: list[list[Query]]
) -> None:
    results = await answer_many(engine_of(live), 10)

    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert [query.k for batch in batches for query in batch] == list(range(1, 11)), "in order"
    assert [len(result.answer.rows) for result in results] == list(range(1, 11)), (
        "each its own result"
    )


async def test_a_single_query_does_not_wait_for_others(
    live: ReleaseLoader, batches: list[list[Query]]
) -> None:
    engine = engine_of(live)
    for k in (1, 2, 3):
        await engine.answer(query(k), connected)

    assert [len(batch) for batch in batches] == [1, 1, 1]


async def test_queries_beyond_the_queue_limit_are_rejected_at_once(live: ReleaseLoader) -> None:
    results = await answer_many(engine_of(live, max_queue_size=3), 8)

    assert [isinstance(result, QueryResult) for result in results] == [True] * 3 + [False] * 5
    assert all(isinstance(result, OverloadedError) for result in results[3:])
    assert rejections(live, "queue_full") == 5


async def test_an_empty_queue_admits_queries_again(live: ReleaseLoader) -> None:
    engine = engine_of(live, max_queue_size=3)
    for _ in range(3):
        assert all(isinstance(result, QueryResult) for result in await answer_many(engine, 3))


async def test_nothing_is_computed_for_a_disconnected_client(
    live: ReleaseLoader, batches: list[list[Query]]
) -> None:
    engine = engine_of(live)
    disconnected = engine.answer(query(1), lambda: True)
    cancelled = asyncio.ensure_future(engine.answer(query(2), connected))
    answers = asyncio.gather(
        disconnected, engine.answer(query(3), connected), return_exceptions=True
    )
    await asyncio.sleep(0)
    cancelled.cancel()
    first, second = await answers

    assert isinstance(first, ClientDisconnectedError)
    assert isinstance(second, QueryResult)
    assert [[query.k for query in batch] for batch in batches] == [[3]]
    assert rejections(live, "client_gone") == 2


async def test_a_query_past_its_deadline_is_rejected(
    live: ReleaseLoader, batches: list[list[Query]]
) -> None:
    deadline = time.perf_counter() + 0.01
    requests = asyncio.ensure_future(engine_of(live).answer(query(1), connected, deadline))
    await asyncio.sleep(0)
    while time.perf_counter() < deadline:
        pass
    with pytest.raises(OverloadedError, match="too long for an answer before the deadline"):
        await requests

    assert not batches
    assert rejections(live, "deadline") == 1


async def iterations_taken(engine: Engine, queries: int) -> int:
    """Iterations of the event loop from a request to its result."""
    await asyncio.sleep(0.01)
    requests = asyncio.ensure_future(engine.answer_all([query(1)] * queries, connected))
    iterations = 0
    while not requests.done():
        await asyncio.sleep(0)
        iterations += 1
    return iterations


async def test_a_gpu_is_searched_beside_the_event_loop(live: ReleaseLoader) -> None:
    threads: list[int] = []

    def noting(index: faiss.Index) -> Any:
        search = index.search

        def searched(*asked: Any) -> Any:
            threads.append(threading.get_ident())
            return search(*asked)

        index.search = searched  # type: ignore[method-assign]
        return index

    assert live.release is not None
    retriever = live.release.retriever
    vectors = np.asarray(retriever.vectors)
    [expected] = retriever.recommend([query(2)])
    on_gpu = GpuIndex(FlatIndex(vectors), vectors, 1, noting)
    live.release = replace(live.release, retriever=replace(retriever, index=on_gpu))
    result = await engine_of(live).answer(query(2), connected)
    assert result.answer.rows.tolist() == expected.rows.tolist()
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.usefixtures("slow")
async def test_a_long_batch_yields_to_the_event_loop(live: ReleaseLoader) -> None:
    engine = engine_of(live)
    assert await iterations_taken(engine, 4) == await iterations_taken(engine, 1) + 3


async def test_a_short_batch_yields_only_while_requests_are_rejected(
    live: ReleaseLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.serving.batching._TIME_SLICE_S", 1e9)
    monkeypatch.setattr("service.serving.batching._SHORT_TIME_SLICE_S", 0.0)
    engine = engine_of(live)
    undisturbed = await iterations_taken(engine, 4)
    assert engine.is_full(10)
    assert await iterations_taken(engine, 4) > undisturbed
    assert await iterations_taken(engine, 4) == undisturbed, "no request has been rejected since"
    with pytest.raises(OverloadedError):
        await asyncio.gather(*(engine.answer(query(1), connected) for _ in range(11)))
    while engine._running:
        await asyncio.sleep(0)
    await engine.answer(query(1), connected)
    assert await iterations_taken(engine, 4) == undisturbed


@pytest.mark.usefixtures("slow")
async def test_a_request_cancelled_during_its_batch_does_not_affect_others(
    live: ReleaseLoader,
) -> None:
    engine = engine_of(live)
    requests = [asyncio.ensure_future(engine.answer(query(k), connected)) for k in (1, 2, 3)]
    while engine.depth or not engine._running:
        await asyncio.sleep(0)
    requests[1].cancel()
    first, _, third = await asyncio.gather(*requests, return_exceptions=True)

    assert isinstance(first, QueryResult)
    assert isinstance(third, QueryResult)
    assert [len(result.answer.rows) for result in (first, third)] == [1, 3]
    assert len((await engine.answer(query(4), connected)).answer.rows) == 4


@pytest.mark.usefixtures("slow")
async def test_a_query_with_too_long_a_wait_is_rejected_at_once(
    live: ReleaseLoader, batches: list[list[Query]]
) -> None:
    """The engine can estimate the wait once it has answered two batches in a row."""
    engine = engine_of(live, max_batch_size=1)
    waiting = [asyncio.ensure_future(engine.answer(query(k), connected)) for k in range(1, 7)]
    while len(batches) < 2:
        await asyncio.sleep(0)
    soon = time.perf_counter() + 0.03
    with pytest.raises(OverloadedError, match="the wait is about"):
        engine.admit(soon)
    engine.admit(time.perf_counter() + 10)
    assert not engine.is_full(engine.depth)
    assert engine.is_full(10)
    await asyncio.gather(*waiting)
    while engine._running:
        await asyncio.sleep(0)
    engine.admit(time.perf_counter() + 0.001)

    assert rejections(live, "wait") == 1
    assert len(batches) == 6, "all admitted queries have been answered"


async def test_a_wrong_estimate_is_corrected(
    live: ReleaseLoader, batches: list[list[Query]]
) -> None:
    """With an estimate that is far too long, the engine would drop every request."""
    engine = engine_of(live, deadline_s=60.0, max_batch_size=2)
    requests = [asyncio.ensure_future(engine.answer(query(k), connected)) for k in (1, 2, 3)]
    await asyncio.sleep(0)
    engine._estimate.interval_s = 100.0
    first, *others = await asyncio.gather(*requests, return_exceptions=True)

    assert isinstance(first, QueryResult), "one is answered, which corrects the estimate"
    assert all(isinstance(result, OverloadedError) for result in others)
    for _ in range(20):
        while engine._running:
            await asyncio.sleep(0)
        await answer_many(engine, 1)
    assert all(isinstance(result, QueryResult) for result in await answer_many(engine, 3))


async def test_the_depth_and_the_age_of_the_queue_are_known(live: ReleaseLoader) -> None:
    engine = engine_of(live)
    assert (engine.depth, engine.age_s) == (0, 0.0)
    requests = [asyncio.ensure_future(engine.answer(query(k), connected)) for k in (1, 2)]
    await asyncio.sleep(0)
    assert engine.depth == 2
    assert engine.age_s > 0
    await asyncio.gather(*requests)
    assert (engine.depth, engine.age_s) == (0, 0.0)


async def test_a_query_that_breaks_the_retriever_does_not_affect_others(
    live: ReleaseLoader, batches: Any
) -> None:
    engine = engine_of(live)
    results = await asyncio.gather(
        *(engine.answer(query(k), connected) for k in (3, 13, 5)), return_exceptions=True
    )

    assert [type(result) for result in results] == [QueryResult, ZeroDivisionError, QueryResult]
    assert [len(results[i].answer.rows) for i in (0, 2)] == [3, 5]


async def test_after_an_error_of_a_whole_batch_the_next_is_answered(live: ReleaseLoader) -> None:
    errors = [ZeroDivisionError()]

    def rows(_: Release) -> frozenset[int]:
        if errors:
            raise errors.pop()
        return frozenset()

    engine = engine_of(live, withdrawn=rows)
    results = await answer_many(engine, 3)
    assert [type(result) for result in results] == [ZeroDivisionError] * 3
    assert len((await engine.answer(query(2), connected)).answer.rows) == 2


def engine_failures(live: ReleaseLoader) -> float:
    return float(live._metrics.task_failures["engine"]._value.get())


async def test_a_broken_connection_check_fails_that_request_only(live: ReleaseLoader) -> None:
    def raises() -> bool:
        raise ZeroDivisionError

    engine = engine_of(live)
    async with asyncio.timeout(10):
        outcomes = await asyncio.gather(
            engine.answer(query(1), connected),
            engine.answer(query(2), raises),
            engine.answer(query(3), connected),
            return_exceptions=True,
        )
        after = await engine.answer(query(4), connected)

    assert [type(outcome) for outcome in outcomes] == [QueryResult, ZeroDivisionError, QueryResult]
    assert len(after.answer.rows) == 4
    assert engine_failures(live) == 1


@pytest.mark.parametrize(
    "broken", ["_next_batch", "_run_slice", "_observe", "_drop", "_estimate", "withdrawn"]
)
async def test_the_engine_goes_on_after_an_error_anywhere(
    live: ReleaseLoader, broken: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Every request has an outcome, and the next one its answer."""
    engine = engine_of(live)

    def raises(*_: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        if broken == "_estimate":
            patch.setattr(engine._estimate, "batch_began", raises)
        else:
            patch.setattr(engine, broken, raises)
        async with asyncio.timeout(10):
            outcomes = await answer_many(engine, 6)
    assert {type(outcome) for outcome in outcomes} == {ZeroDivisionError}
    async with asyncio.timeout(10):
        while engine._running:
            await asyncio.sleep(0)
        assert len((await engine.answer(query(2), connected)).answer.rows) == 2
    assert engine_failures(live) >= 1
    assert "engine failed" in caplog.text


@pytest.mark.usefixtures("slow")
async def test_a_batch_is_answered_by_one_release(live: ReleaseLoader) -> None:
    """By the newest at its start, even if a newer one is loaded in the middle of it."""

    def load(release_id: str) -> None:
        assert live.release is not None
        manifest = live.release.manifest.model_copy(update={"id": release_id})
        live.release = replace(live.release, manifest=manifest)

    engine = engine_of(live)
    waiting = [asyncio.ensure_future(engine.answer(query(k), connected)) for k in (1, 2)]
    await asyncio.sleep(0)
    load("while they wait")
    while engine.depth:
        await asyncio.sleep(0)
    assert not any(result.done() for result in waiting)
    load("while they are answered")
    results = await asyncio.gather(*waiting)

    assert {result.release.id for result in results} == {"while they wait"}
    assert (await engine.answer(query(1), connected)).release.id == "while they are answered"


async def test_the_queries_of_one_request_are_in_one_batch(
    live: ReleaseLoader, batches: list[list[Query]]
) -> None:
    engine = engine_of(live, max_queue_size=100)
    before = asyncio.ensure_future(engine.answer(query(20), connected))
    many = asyncio.ensure_future(engine.answer_all([query(k) for k in range(1, 8)], connected))
    after = [asyncio.ensure_future(engine.answer(query(k), connected)) for k in (21, 22)]
    outcomes = await many

    assert [len(result.answer.rows) for result in outcomes if isinstance(result, QueryResult)] == [
        *range(1, 8)
    ]
    assert len((await before).answer.rows) == 20
    assert [len((await result).answer.rows) for result in after] == [21, 22]
    assert [len(batch) for batch in batches] == [1, 7, 2], "too large for a batch, so alone"
    assert engine.depth == 0


async def test_only_the_failed_query_of_a_request_has_an_error(
    live: ReleaseLoader, batches: Any
) -> None:
    outcomes = await engine_of(live).answer_all([query(k) for k in (3, 13, 5)], connected)

    assert [type(result) for result in outcomes] == [QueryResult, ZeroDivisionError, QueryResult]


async def test_the_depth_counts_queries_not_requests(live: ReleaseLoader) -> None:
    engine = engine_of(live, max_queue_size=5)
    many = asyncio.ensure_future(engine.answer_all([query(1)] * 7, connected))
    await asyncio.sleep(0)
    assert engine.depth == 7
    with pytest.raises(OverloadedError, match="7 requests wait"):
        engine.admit()
    assert len(await many) == 7
    engine.admit()


async def test_withdrawn_rows_are_read_once_for_each_batch(live: ReleaseLoader) -> None:
    withdrawn: frozenset[int] = frozenset()
    releases: list[Release] = []

    def rows(release: Release) -> frozenset[int]:
        releases.append(release)
        return withdrawn

    engine = engine_of(live, withdrawn=rows)
    first = await engine.answer(Query([], 3), connected)
    withdrawn = frozenset({1, 3})
    second = await engine.answer(Query([], 3), connected)

    assert first.answer.rows.tolist() == [1, 2, 3]
    assert second.answer.rows.tolist() == [2, 4, 5]
    assert releases == [live.release] * 2


async def test_without_a_release_nothing_is_admitted(root: Path) -> None:
    engine = engine_of(ReleaseLoader(root, Metrics()))
    with pytest.raises(NotReadyError):
        engine.admit()
    with pytest.raises(NotReadyError):
        await engine.answer(query(1), connected)


# --- over HTTP ---


async def test_a_full_queue_gives_503(serve: Serve) -> None:
    async with serve(max_queue_size=1) as client:
        requests = [client.post("/recommend", json={"sequence": ["item-1"]}) for _ in range(20)]
        responses = await asyncio.gather(*requests)

    rejected = [response for response in responses if response.status_code == 503]
    assert rejected
    assert {response.status_code for response in responses} == {200, 503}
    for response in rejected:
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"]["code"] == "overloaded"


async def test_a_bug_gives_500_in_the_same_shape(
    serve: Serve, batches: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve() as client:
        response = await client.post("/recommend", json={"user_id": "secret-user", "k": 13})
        after = await client.post("/recommend", json={"sequence": ["item-1"]})
        metrics = (await client.get("/metrics")).text

    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert "ZeroDivision" not in response.text
    assert after.status_code == 200
    assert 're4_requests_total{route="/recommend",status="500"} 1.0' in metrics
    assert "request failed" in caplog.text
    assert "secret-user" not in caplog.text

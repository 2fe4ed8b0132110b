"""The engine answers in batches, in order, within its bounds, and for those who still wait."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.release.reading import Release
from index.retrieval.retriever import Answer, Query, Retriever
from service.errors import ClientGoneError, NotReadyError, OverloadedError
from service.serving.batching import Engine, Served, _Pace
from service.serving.release_loader import LiveRelease
from service.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio

Found = tuple[int, Answer]
Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
async def live(root: Path, publish: Publish) -> LiveRelease:
    publish()
    live = LiveRelease(root, Metrics())
    await live.refresh()
    return live


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[Query]]:
    """What the retriever was asked, batch by batch. A query for k = 13 breaks it in its turn."""
    seen: list[list[Query]] = []
    really = Retriever.answers

    def asked(self: Retriever, queries: Sequence[Query], *more: Any) -> Iterator[Found]:
        seen.append(list(queries))
        for place, answer in really(self, queries, *more):
            if queries[place].k == 13:
                raise ZeroDivisionError
            yield place, answer

    monkeypatch.setattr(Retriever, "answers", asked)
    return seen


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer takes 20 ms."""
    really = Retriever.answers

    def slowly(self: Retriever, *asked: Any) -> Iterator[Found]:
        for found in really(self, *asked):
            end = time.perf_counter() + 0.02
            while time.perf_counter() < end:
                pass
            yield found

    monkeypatch.setattr(Retriever, "answers", slowly)


def engine_of(live: LiveRelease, **limits: Any) -> Engine:
    chosen = {"queue_limit": 10, "batch_limit": 4, "deadline_s": 1e9}
    return Engine(live, live._metrics, **{**chosen, **limits})


def here() -> bool:
    return False


def query(k: int) -> Query:
    return Query(["item-1"], k)


async def ask(engine: Engine, count: int) -> list[Served | BaseException]:
    """Answers to `count` queries that come at once; the first wants 1 item, the last `count`."""
    asked = [engine.answer(query(k), here) for k in range(1, count + 1)]
    return await asyncio.gather(*asked, return_exceptions=True)


def refused(live: LiveRelease, reason: str) -> float:
    return float(live._metrics.refused[reason]._value.get())  # type: ignore[index]


async def test_what_waits_together_is_answered_together(
    live: LiveRelease, batches: list[list[Query]]
) -> None:
    served = await ask(engine_of(live), 10)

    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert [query.k for batch in batches for query in batch] == list(range(1, 11)), "in order"
    assert [len(each.answer.rows) for each in served] == list(range(1, 11)), "to whom it belongs"


async def test_a_query_alone_does_not_wait_for_others(
    live: LiveRelease, batches: list[list[Query]]
) -> None:
    engine = engine_of(live)
    for k in (1, 2, 3):
        await engine.answer(query(k), here)

    assert [len(batch) for batch in batches] == [1, 1, 1]


async def test_more_than_may_wait_are_refused_at_once(live: LiveRelease) -> None:
    served = await ask(engine_of(live, queue_limit=3), 8)

    assert [isinstance(each, Served) for each in served] == [True] * 3 + [False] * 5
    assert all(isinstance(each, OverloadedError) for each in served[3:])
    assert refused(live, "queue_full") == 5


async def test_there_is_room_again_when_the_queue_is_empty(live: LiveRelease) -> None:
    engine = engine_of(live, queue_limit=3)
    for _ in range(3):
        assert all(isinstance(each, Served) for each in await ask(engine, 3))


async def test_nothing_is_computed_for_a_client_that_has_gone(
    live: LiveRelease, batches: list[list[Query]]
) -> None:
    engine = engine_of(live)
    gone = engine.answer(query(1), lambda: True)
    cancelled = asyncio.ensure_future(engine.answer(query(2), here))
    answers = asyncio.gather(gone, engine.answer(query(3), here), return_exceptions=True)
    await asyncio.sleep(0)
    cancelled.cancel()
    first, second = await answers

    assert isinstance(first, ClientGoneError)
    assert isinstance(second, Served)
    assert [[query.k for query in batch] for batch in batches] == [[3]]
    assert refused(live, "client_gone") == 2


async def test_who_has_waited_too_long_is_refused(
    live: LiveRelease, batches: list[list[Query]]
) -> None:
    deadline = time.perf_counter() + 0.01
    asked = asyncio.ensure_future(engine_of(live).answer(query(1), here, deadline))
    await asyncio.sleep(0)
    while time.perf_counter() < deadline:
        pass
    with pytest.raises(OverloadedError, match="too long for an answer before the deadline"):
        await asked

    assert not batches
    assert refused(live, "deadline") == 1


async def turns_taken(engine: Engine, queries: int) -> int:
    """Turns of the event loop from a request to its answer."""
    await asyncio.sleep(0.01)
    asked = asyncio.ensure_future(engine.answer_all([query(1)] * queries, here))
    turns = 0
    while not asked.done():
        await asyncio.sleep(0)
        turns += 1
    return turns


@pytest.mark.usefixtures("slow")
async def test_a_batch_that_takes_long_leaves_turns_to_others(live: LiveRelease) -> None:
    engine = engine_of(live)
    assert await turns_taken(engine, 4) == await turns_taken(engine, 1) + 3


async def test_one_that_does_not_leaves_them_only_while_others_are_refused(
    live: LiveRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.serving.batching._TURN_S", 1e9)
    monkeypatch.setattr("service.serving.batching._SHORT_TURN_S", 0.0)
    engine = engine_of(live)
    undisturbed = await turns_taken(engine, 4)
    assert engine.is_full(10)
    assert await turns_taken(engine, 4) > undisturbed
    assert await turns_taken(engine, 4) == undisturbed, "nobody has been refused since"
    with pytest.raises(OverloadedError):
        await asyncio.gather(*(engine.answer(query(1), here) for _ in range(11)))
    while engine._running:
        await asyncio.sleep(0)
    await engine.answer(query(1), here)
    assert await turns_taken(engine, 4) == undisturbed


@pytest.mark.usefixtures("slow")
async def test_who_gives_up_when_its_batch_is_under_way_spoils_no_other(live: LiveRelease) -> None:
    engine = engine_of(live)
    asked = [asyncio.ensure_future(engine.answer(query(k), here)) for k in (1, 2, 3)]
    while engine.depth or not engine._running:
        await asyncio.sleep(0)
    asked[1].cancel()
    first, _, third = await asyncio.gather(*asked, return_exceptions=True)

    assert isinstance(first, Served)
    assert isinstance(third, Served)
    assert [len(each.answer.rows) for each in (first, third)] == [1, 3]
    assert len((await engine.answer(query(4), here)).answer.rows) == 4


@pytest.mark.usefixtures("slow")
async def test_who_would_wait_too_long_is_refused_at_once(
    live: LiveRelease, batches: list[list[Query]]
) -> None:
    """The engine knows how fast it is once it has answered one batch after another."""
    engine = engine_of(live, batch_limit=1)
    waiting = [asyncio.ensure_future(engine.answer(query(k), here)) for k in range(1, 7)]
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

    assert refused(live, "wait") == 1
    assert len(batches) == 6, "all that were admitted have been answered"


def test_one_pause_makes_the_expected_wait_little_longer_and_slowness_all_of_it() -> None:
    """Those who came in a pause are not to be refused for it."""
    pace, now = _Pace(), 0.0
    for _ in range(20):
        pace.begin(now)
        now += 0.01
    pace.begin(now + 0.2)
    assert pace.seconds == pytest.approx(0.015)
    for batch in range(1, 11):
        pace.begin(now + 0.2 + 0.1 * batch)
    assert pace.seconds == pytest.approx(0.1, rel=0.1)


async def test_a_pause_of_the_process_does_not_stop_it_for_ever(
    live: LiveRelease, batches: list[list[Query]]
) -> None:
    """After it the engine takes itself to be slow, and would drop whatever keeps coming."""
    engine = engine_of(live, deadline_s=60.0, batch_limit=2)
    asked = [asyncio.ensure_future(engine.answer(query(k), here)) for k in (1, 2, 3)]
    await asyncio.sleep(0)
    engine._pace.seconds = 100.0
    first, *others = await asyncio.gather(*asked, return_exceptions=True)

    assert isinstance(first, Served), "one is tried, from which it learns better"
    assert all(isinstance(each, OverloadedError) for each in others)
    for _ in range(20):
        while engine._running:
            await asyncio.sleep(0)
        await ask(engine, 1)
    assert all(isinstance(each, Served) for each in await ask(engine, 3))


async def test_how_many_wait_and_how_long_is_known(live: LiveRelease) -> None:
    engine = engine_of(live)
    assert (engine.depth, engine.age_s) == (0, 0.0)
    asked = [asyncio.ensure_future(engine.answer(query(k), here)) for k in (1, 2)]
    await asyncio.sleep(0)
    assert engine.depth == 2
    assert engine.age_s > 0
    await asyncio.gather(*asked)
    assert (engine.depth, engine.age_s) == (0, 0.0)


async def test_a_query_that_breaks_the_retriever_spoils_no_other(
    live: LiveRelease, batches: Any
) -> None:
    engine = engine_of(live)
    served = await asyncio.gather(
        *(engine.answer(query(k), here) for k in (3, 13, 5)), return_exceptions=True
    )

    assert [type(each) for each in served] == [Served, ZeroDivisionError, Served]
    assert [len(served[i].answer.rows) for i in (0, 2)] == [3, 5]


async def test_after_an_error_of_a_whole_batch_the_next_is_answered(live: LiveRelease) -> None:
    errors = [ZeroDivisionError()]

    def rows(_: Release) -> frozenset[int]:
        if errors:
            raise errors.pop()
        return frozenset()

    engine = engine_of(live, withdrawn=rows)
    served = await ask(engine, 3)
    assert [type(each) for each in served] == [ZeroDivisionError] * 3
    assert len((await engine.answer(query(2), here)).answer.rows) == 2


@pytest.mark.usefixtures("slow")
async def test_a_batch_is_answered_by_one_release(live: LiveRelease) -> None:
    """By the newest when its turn comes, and not by one that comes in the middle of it."""

    def put_in_use(release_id: str) -> None:
        assert live.release is not None
        manifest = live.release.manifest.model_copy(update={"id": release_id})
        live.release = Release(manifest, live.release.retriever)

    engine = engine_of(live)
    waiting = [asyncio.ensure_future(engine.answer(query(k), here)) for k in (1, 2)]
    await asyncio.sleep(0)
    put_in_use("while they wait")
    while engine.depth:
        await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    put_in_use("while they are answered")
    served = await asyncio.gather(*waiting)

    assert {each.release.id for each in served} == {"while they wait"}
    assert (await engine.answer(query(1), here)).release.id == "while they are answered"


async def test_the_queries_of_one_request_are_one_batch_however_many(
    live: LiveRelease, batches: list[list[Query]]
) -> None:
    engine = engine_of(live, queue_limit=100)
    before = asyncio.ensure_future(engine.answer(query(20), here))
    many = asyncio.ensure_future(engine.answer_all([query(k) for k in range(1, 8)], here))
    after = [asyncio.ensure_future(engine.answer(query(k), here)) for k in (21, 22)]
    outcomes = await many

    assert [len(each.answer.rows) for each in outcomes if isinstance(each, Served)] == [
        *range(1, 8)
    ]
    assert len((await before).answer.rows) == 20
    assert [len((await each).answer.rows) for each in after] == [21, 22]
    assert [len(batch) for batch in batches] == [1, 7, 2], "more than a batch, and so alone"
    assert engine.depth == 0


async def test_of_the_queries_of_one_request_a_broken_one_has_its_error(
    live: LiveRelease, batches: Any
) -> None:
    outcomes = await engine_of(live).answer_all([query(k) for k in (3, 13, 5)], here)

    assert [type(each) for each in outcomes] == [Served, ZeroDivisionError, Served]


async def test_the_queries_that_wait_are_counted_one_by_one(live: LiveRelease) -> None:
    engine = engine_of(live, queue_limit=5)
    many = asyncio.ensure_future(engine.answer_all([query(1)] * 7, here))
    await asyncio.sleep(0)
    assert engine.depth == 7
    with pytest.raises(OverloadedError, match="7 requests wait"):
        engine.admit()
    assert len(await many) == 7
    engine.admit()


async def test_what_is_withdrawn_is_asked_for_each_batch(live: LiveRelease) -> None:
    withdrawn: frozenset[int] = frozenset()
    asked: list[Release] = []

    def rows(release: Release) -> frozenset[int]:
        asked.append(release)
        return withdrawn

    engine = engine_of(live, withdrawn=rows)
    first = await engine.answer(Query([], 3), here)
    withdrawn = frozenset({1, 3})
    second = await engine.answer(Query([], 3), here)

    assert first.answer.rows.tolist() == [1, 2, 3]
    assert second.answer.rows.tolist() == [2, 4, 5]
    assert asked == [live.release] * 2


async def test_without_a_release_nothing_is_admitted(root: Path) -> None:
    engine = engine_of(LiveRelease(root, Metrics()))
    with pytest.raises(NotReadyError):
        engine.admit()
    with pytest.raises(NotReadyError):
        await engine.answer(query(1), here)


# --- over HTTP ---


async def test_a_full_queue_is_told_with_503(serve: Serve) -> None:
    async with serve(max_queue_size=1) as client:
        asked = [client.post("/recommend", json={"sequence": ["item-1"]}) for _ in range(20)]
        responses = await asyncio.gather(*asked)

    refusals = [response for response in responses if response.status_code == 503]
    assert refusals
    assert {response.status_code for response in responses} == {200, 503}
    for response in refusals:
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"]["code"] == "overloaded"


async def test_a_bug_is_told_with_500_in_the_same_shape(
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

"""A canary in shadow mode is asked besides, and only the metrics see its answers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest

from index.release.canary_file import CanaryRelease, write_canary
from index.retrieval.query import Query
from index.retrieval.retriever import Retriever
from service.http.shadow import _MAX_COMPARISONS
from service.serving.canary import is_in_share
from tests.service.application import state_behind

pytestmark = pytest.mark.anyio

Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
USERS = [f"user-{number}" for number in range(20)]
IN_SHARE = [user for user in USERS if is_in_share(user, "second", 0.5)]


@pytest.fixture
async def client(root: Path, publish: Publish, serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """Of a service with the shadow second."""
    publish("second", current=False)
    async with serve() as client:
        write_canary(root, CanaryRelease(release="second", share=0.5, shadow=True))
        await state_behind(client).canary.refresh()
        yield client


async def ask(client: httpx.AsyncClient, user: str | None, k: int = 5) -> tuple[str, str]:
    body = {"user_id": user, "sequence": ["item-1"], "k": k}
    answer = (await client.post("/recommend", json=body)).json()
    await asyncio.gather(*state_behind(client).shadow._tasks)
    return answer["release"], answer["variant"]


async def sample(client: httpx.AsyncClient, name: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def compared(client: httpx.AsyncClient) -> float:
    return await sample(client, 're4_shadow_comparisons_total{outcome="compared"}')


async def test_everyone_is_answered_by_the_live_release_and_the_share_is_compared(
    client: httpx.AsyncClient,
) -> None:
    assert {await ask(client, user) for user in [*USERS, None]} == {("first", "current")}
    assert await compared(client) == len(IN_SHARE)
    assert await sample(client, "re4_shadow_overlap_ratio_count") == len(IN_SHARE)
    assert await sample(client, "re4_shadow_score_difference_ratio_count") == len(IN_SHARE)
    overlap = await sample(client, "re4_shadow_overlap_ratio_sum")
    assert 0 <= overlap < len(IN_SHARE)


async def test_some_of_a_batch_are_compared(client: httpx.AsyncClient) -> None:
    requests = [{"user_id": user, "sequence": ["item-1"], "k": 5} for user in [*USERS, None]]
    response = await client.post("/recommend/batch", json={"requests": requests})
    await asyncio.gather(*state_behind(client).shadow._tasks)
    assert {answer["release"] for answer in response.json()["answers"]} == {"first"}
    assert 1 <= await compared(client) <= _MAX_COMPARISONS  # each is a request that waits
    skipped = await sample(client, 're4_shadow_comparisons_total{outcome="skipped"}')
    assert skipped == len(IN_SHARE) - await compared(client)


async def test_the_overlap_of_all_items_is_1(client: httpx.AsyncClient) -> None:
    await ask(client, IN_SHARE[0], k=1000)
    assert await sample(client, "re4_shadow_overlap_ratio_sum") == 1


async def test_a_comparison_is_skipped_while_a_request_waits(client: httpx.AsyncClient) -> None:
    state = state_behind(client)
    waiting = asyncio.create_task(state.engine.answer(Query(["item-1"], 1), lambda: False))
    await asyncio.sleep(0)
    assert state.engine.depth == 1
    state.shadow.compare(IN_SHARE[0], Query(["item-1"], 1), [])
    [task] = state.shadow._tasks
    state.engine._queue.depth += 1  # until the comparison has begun
    await task
    state.engine._queue.depth -= 1
    await waiting
    assert await sample(client, 're4_shadow_comparisons_total{outcome="skipped"}') == 1


async def test_comparisons_at_a_time_are_bounded(client: httpx.AsyncClient) -> None:
    shadow = state_behind(client).shadow
    for _ in range(7):
        shadow.compare(IN_SHARE[0], Query(["item-1"], 1), [])
    assert len(shadow._tasks) == 4
    await asyncio.gather(*shadow._tasks)
    assert await sample(client, 're4_shadow_comparisons_total{outcome="skipped"}') >= 3


async def test_a_failure_is_counted_and_nobody_else_sees_it(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    shadow = state_behind(client).shadow
    shadow.compare(IN_SHARE[0], Query(["item-1"], 1), [])
    with monkeypatch.context() as patch:
        patch.setattr(Retriever, "answers", fail)
        await asyncio.gather(*shadow._tasks)
    assert await sample(client, 're4_shadow_comparisons_total{outcome="failed"}') == 1
    assert "shadow failed" in caplog.messages
    assert await ask(client, IN_SHARE[0]) == ("first", "current")

"""A background task goes on after any exception, which is counted and logged."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.errors import HistoryUnavailableError
from service.serving.release_loader import ReleaseLoader
from service.serving.supervision import run_for_ever
from service.settings import Settings
from service.store.availability import ItemAvailability
from service.store.cold_start import ColdStartItems
from service.store.redis_client import ResilientRedis, deployment_of
from service.telemetry.metrics import Metrics
from tests.service.conftest import client_of

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), asyncio.CancelledError(), None])
async def test_the_work_starts_again_however_it_ends(
    error: BaseException | None, caplog: pytest.LogCaptureFixture
) -> None:
    metrics, starts, works = Metrics(), [0], asyncio.Event()

    async def work() -> None:
        starts[0] += 1
        if starts[0] == 3:
            works.set()
            await asyncio.Event().wait()
        if error is not None:
            raise error

    task = asyncio.create_task(run_for_ever("releases", work, metrics, retry_s=0))
    async with asyncio.timeout(10):
        await works.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

    assert task.cancelled(), "it ends when it is asked to"
    assert starts == [3]
    assert b're4_background_task_failures_total{task="releases"} 2.0' in metrics.text()
    assert caplog.text.count("background task failed") == 2


def failing_twice(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, which raises an unexpected error the first two times."""
    left = [2]

    async def call(*arguments: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise ZeroDivisionError
        return await method(*arguments, **options)

    return call


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_for_ever, "__defaults__", (0.01,))


async def wait_for_metric(client: httpx.AsyncClient, line: str) -> None:
    async with asyncio.timeout(30):
        while line not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.01)


async def test_releases_are_followed_after_an_unexpected_error(
    settings: Callable[..., Settings],
    publish: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ReleaseLoader, "refresh", failing_twice(ReleaseLoader.refresh))
    publish()
    async with client_of(create_app(settings())) as client:
        await wait_for_metric(client, 're4_background_task_failures_total{task="releases"} 2.0')
        async with asyncio.timeout(30):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)


async def test_withdrawals_are_followed_after_an_unexpected_error(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve() as client:
        monkeypatch.setattr(ItemAvailability, "poll", failing_twice(ItemAvailability.poll))
        await wait_for_metric(client, 're4_background_task_failures_total{task="withdrawals"} 2.0')
        response = await client.put("/items/item-1", json={"available": False})
        assert response.json() == {"available": False, "changed": True, "known": True}


async def test_new_items_are_followed_after_an_unexpected_error(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ColdStartItems, "poll", failing_twice(ColdStartItems.poll))
    async with serve() as client:
        await wait_for_metric(client, 're4_background_task_failures_total{task="new items"} 2.0')
    async with serve(max_cold_start_items=0) as client:
        await asyncio.sleep(0.1)
        assert 'task="new items"} 0.0' in (await client.get("/metrics")).text, "it does not run"


async def test_an_unexpected_error_of_a_redis_task_is_counted(
    settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    """Also if nobody waits for the task."""

    async def work() -> None:
        raise ZeroDivisionError

    async def cancelled(_: object) -> None:
        raise asyncio.CancelledError

    metrics, chosen = Metrics(), settings()
    redis = ResilientRedis(deployment_of(chosen), chosen, metrics)
    await redis.start()
    with suppress(ZeroDivisionError):
        await redis.spawn(work())
    with pytest.raises(HistoryUnavailableError):
        await redis.call("read", cancelled)
    await redis.close()

    assert b're4_background_task_failures_total{task="redis"} 1.0' in metrics.text()
    assert "background task failed" in caplog.text

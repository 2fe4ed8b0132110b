"""The hit rate of the live release is known without a canary, of a sample of the users."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.release.canary_file import CanaryRelease, write_canary
from service.store.live_quality import LiveQuality
from tests.service.application import Clock, state_behind

pytestmark = pytest.mark.anyio

Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
WINDOW_S = 3600.0
USERS = [f"user-{number}" for number in range(20)]


class Shop:
    """A service whose clock the test sets."""

    def __init__(self, root: Path, client: httpx.AsyncClient) -> None:
        self.root, self.client, self.clock = root, client, Clock(1.8e9)
        self.state = state_behind(client)
        store = LiveQuality(self.state.redis, WINDOW_S / 3600, self.clock)
        self.state.quality._store = self.state.canary_quality._store = store

    async def ask(self, user: str) -> dict[str, Any]:
        body = {"user_id": user, "sequence": ["item-1"], "k": 5}
        answer: dict[str, Any] = (await self.client.post("/recommend", json=body)).json()
        return answer

    async def take(self, user: str, item: str, **fields: str) -> None:
        await self.client.post("/events", json={"user_id": user, "item_id": item, **fields})

    async def live(self) -> dict[str, Any]:
        """The live quality once all windows have ended."""
        for task in [*self.state.redis._tasks]:
            await task
        self.clock.now += 2 * WINDOW_S
        live: dict[str, Any] = (await self.client.get("/canary")).json()["live"]
        return live

    async def metrics(self) -> str:
        await self.state.quality.check()
        return (await self.client.get("/metrics")).text


@pytest.fixture
async def shop(root: Path, publish: Publish, serve: Serve) -> AsyncIterator[Shop]:
    async with serve(quality_sample_rate=1) as client:
        yield Shop(root, client)


async def test_the_hit_rate_is_known_by_interest_and_with_an_interval(shop: Shop) -> None:
    assert "re4_live_hit_rate{" not in await shop.metrics()
    for user in USERS:
        item = (await shop.ask(user))["items"][0]
        if user in USERS[:5]:
            await shop.take(user, item["item_id"])
    live = await shop.live()
    assert (live["release"], live["users"], live["answers"]) == ("first", 20, 20)
    assert live["hit_rate"]["low"] < live["hit_rate"]["estimate"] == 0.25 < live["hit_rate"]["high"]
    assert live["by_interest"][str(item["interest"])]["estimate"] == 0.25
    assert live["items"] == 5
    metrics = await shop.metrics()
    assert 're4_live_hit_rate{bound="estimate",interest="all"} 0.25' in metrics
    assert "re4_live_users 20.0" in metrics
    assert "re4_live_items 5.0" in metrics


async def test_the_entries_of_a_batch_are_observed(shop: Shop) -> None:
    requests = [{"user_id": user, "sequence": ["item-1"], "k": 5} for user in USERS]
    await shop.client.post("/recommend/batch", json={"requests": requests})
    assert (await shop.live())["users"] == 20


async def test_an_event_is_a_hit_of_the_release_whose_answer_it_names(
    shop: Shop, publish: Publish
) -> None:
    before = await shop.ask("anna")
    publish("second")
    await shop.state.live.refresh()
    after = await shop.ask("anna")
    [item] = {item["item_id"] for item in before["items"][:1]}
    await shop.take("anna", item, impression_id=before["impression_id"])
    live = await shop.live()
    assert (live["release"], live["hit_rate"]["estimate"]) == ("second", 0)
    publish("first")
    await shop.state.live.refresh()
    live = await shop.live()
    assert (live["release"], live["hit_rate"]["estimate"]) == ("first", 1)
    assert after["release"] == "second"


async def test_it_is_known_while_a_canary_runs(shop: Shop, publish: Publish) -> None:
    publish("second", current=False)
    write_canary(shop.root, CanaryRelease(release="second", share=0.5, started=1.0))
    await shop.state.canary.refresh()
    answers = [await shop.ask(user) for user in USERS]
    by_live = sum(answer["release"] == "first" for answer in answers)
    assert 0 < by_live < 20
    assert (await shop.live())["users"] == by_live


async def test_without_a_sample_nobody_is_observed(
    root: Path, publish: Publish, serve: Serve
) -> None:
    async with serve(quality_sample_rate=0) as client:
        shop = Shop(root, client)
        await shop.take("anna", (await shop.ask("anna"))["items"][0]["item_id"])
        assert await shop.live() is None
        assert "re4_live_users 0.0" in await shop.metrics()


async def test_of_a_sample_always_the_same_users_are_observed(
    root: Path, publish: Publish, serve: Serve
) -> None:
    async with serve(quality_sample_rate=0.5) as client:
        shop = Shop(root, client)
        for user in [*USERS, *USERS]:
            await shop.ask(user)
        assert 0 < (await shop.live())["users"] < 20

"""Hits are counted for the right users, variants and interests; a worse canary is aborted."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.release.canary_file import CanaryRelease, remove_canary, write_canary
from service.serving.canary_quality import report_on
from service.store.live_quality import LiveQuality, Shown, VariantCounts
from tests.service.application import Clock, state_behind

pytestmark = pytest.mark.anyio

Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
WINDOW_S = 3600.0
NO_CANARY = {"release": None, "aborted": False, "quality": None, "live": None}
USERS = [f"user-{number}" for number in range(30)]


class Shop:
    """A service with the live release first and the canary second, whose clock the test sets."""

    def __init__(self, root: Path, client: httpx.AsyncClient) -> None:
        self.root, self.client, self.clock = root, client, Clock(1.8e9)
        self.state = state_behind(client)
        store = LiveQuality(self.state.redis, WINDOW_S / 3600, self.clock)
        self.state.canary_quality._store = self.state.quality._store = store

    async def start(self, started: float = 1.0, shadow: bool = False) -> None:
        canary = CanaryRelease(release="second", share=0.5, shadow=shadow, started=started)
        write_canary(self.root, canary)
        await self.state.canary.refresh()

    async def ask(self, user: str) -> dict[str, Any]:
        body = {"user_id": user, "sequence": ["item-1"], "k": 5}
        answer: dict[str, Any] = (await self.client.post("/recommend", json=body)).json()
        await self.settle()
        return answer

    async def take(self, user: str, item: str, **fields: str) -> None:
        await self.client.post("/events", json={"user_id": user, "item_id": item, **fields})
        await self.settle()

    async def settle(self) -> None:
        """Wait for what is done in the background."""
        for task in [*self.state.redis._tasks]:
            await task

    async def quality(self) -> dict[str, Any]:
        report: dict[str, Any] = (await self.client.get("/canary")).json()
        return report


@pytest.fixture
async def shop(root: Path, publish: Publish, serve: Serve) -> AsyncIterator[Shop]:
    publish("second", current=False)
    async with serve(canary_min_users=5, quality_sample_rate=0) as client:
        yield Shop(root, client)


async def test_without_a_canary_nothing_is_counted(shop: Shop) -> None:
    await shop.ask("anna")
    assert await shop.quality() == NO_CANARY


async def test_users_count_once_their_window_has_ended(shop: Shop) -> None:
    await shop.start()
    for user in USERS:
        answer = await shop.ask(user)
        await shop.ask(user)
        await shop.take(user, answer["items"][0]["item_id"])
        await shop.take(user, answer["items"][1]["item_id"])
    assert [await users(shop, variant) for variant in ("current", "canary")] == [0, 0]
    shop.clock.now += 2 * WINDOW_S
    quality = (await shop.quality())["quality"]["variants"]
    assert quality["current"]["users"] + quality["canary"]["users"] == len(USERS)
    for variant in quality.values():
        assert variant["users"] > 5
        assert variant["answers"] == 2 * variant["users"]
        assert variant["hit_rate"]["estimate"] == 1
        assert sum(rate["estimate"] for rate in variant["by_interest"].values()) == 1
        assert 5 <= variant["items"] <= 40


async def users(shop: Shop, variant: str) -> int:
    count: int = (await shop.quality())["quality"]["variants"][variant]["users"]
    return count


async def hits(shop: Shop) -> float:
    """Users with a hit, of both variants."""
    shop.clock.now += 2 * WINDOW_S
    variants = (await shop.quality())["quality"]["variants"].values()
    return sum(variant["users"] * variant["hit_rate"]["estimate"] for variant in variants)


async def test_the_interest_that_found_the_item_has_the_hit(shop: Shop) -> None:
    await shop.start()
    item = (await shop.ask("anna"))["items"][2]
    await shop.take("anna", item["item_id"])
    shop.clock.now += 2 * WINDOW_S
    variants = (await shop.quality())["quality"]["variants"].values()
    assert [interest for v in variants for interest in v["by_interest"]] == [str(item["interest"])]


async def test_other_items_late_events_and_users_without_an_answer_are_no_hits(shop: Shop) -> None:
    await shop.start()
    shown = [item["item_id"] for item in (await shop.ask("anna"))["items"]]
    other = next(item for number in range(1, 41) if (item := f"item-{number}") not in shown)
    await shop.take("anna", other)
    await shop.take("ben", shown[0])
    shop.clock.now += WINDOW_S + 1
    await shop.ask("anna")  # the answer is there again, but the window has ended
    await shop.take("anna", shown[0])
    assert await hits(shop) == 0


async def test_a_forgotten_user_has_no_hit(shop: Shop) -> None:
    await shop.start()
    item = (await shop.ask("anna"))["items"][0]["item_id"]
    await shop.client.delete("/users/anna/history")
    await shop.take("anna", item)
    assert await hits(shop) == 0


async def test_a_canary_that_is_started_again_is_observed_anew(shop: Shop) -> None:
    await shop.start()
    item = (await shop.ask("anna"))["items"][0]["item_id"]
    await shop.take("anna", item)
    assert await hits(shop) == 1
    await shop.start(started=2.0)
    assert await hits(shop) == 0
    await shop.ask("anna")
    await shop.take("anna", item)
    assert await hits(shop) <= 1


def counts(users: int, hits: int) -> VariantCounts:
    return VariantCounts(users, {"0": hits})


@pytest.mark.parametrize(
    ("canary", "verdict"),
    [
        (counts(1000, 50), "worse"),
        (counts(1000, 200), "undecided"),
        (counts(1000, 400), "better"),
        (counts(99, 0), "undecided"),
    ],
)
def test_the_verdict_needs_users_and_an_interval_on_one_side_of_0(
    canary: VariantCounts, verdict: str
) -> None:
    report = report_on({"current": counts(9000, 1800), "canary": canary}, 0.01, 100)
    assert report.verdict == verdict


async def make_it_worse(shop: Shop) -> None:
    """Let many users of the live release, and none of the canary's, have a hit."""
    run, store = shop.state.canary.run, shop.state.canary_quality._store
    assert run is not None
    for number in range(120):
        variant = ("current", "canary")[number % 2]
        shown = Shown(f"u{number}", "id", variant, {"item-1": "0"}, {run: 90})  # type: ignore[arg-type]
        store.record_answer(shown)
        if variant == "current":
            await shop.take(f"u{number}", "item-1")
    shop.clock.now += 2 * WINDOW_S


async def test_a_worse_canary_is_aborted_and_the_live_release_answers_everyone(shop: Shop) -> None:
    await shop.start()
    answers = [(await shop.ask(user))["release"] for user in USERS]
    assert set(answers) == {"first", "second"}
    await make_it_worse(shop)
    await shop.state.canary_quality.check()
    assert {(await shop.ask(user))["release"] for user in USERS} == {"first"}
    report = await shop.quality()
    assert (report["aborted"], report["quality"]["verdict"]) == (True, "worse")
    await shop.state.canary.refresh()  # its file is still there
    assert shop.state.canary.loaded is None
    metrics = (await shop.client.get("/metrics")).text
    assert "re4_canary_aborted 1.0" in metrics
    assert "re4_canary_aborts_total 1.0" in metrics
    assert 're4_canary_hit_rate{bound="estimate",interest="all",variant="canary"} 0.0' in metrics
    await shop.start(started=2.0)
    assert {(await shop.ask(user))["release"] for user in USERS} == {"first", "second"}
    assert "re4_canary_aborted 0.0" in (await shop.client.get("/metrics")).text


async def test_the_figures_of_a_canary_that_has_ended_are_gone(shop: Shop) -> None:
    await shop.start()
    await make_it_worse(shop)
    await shop.state.canary_quality.check()
    shown = {"re4_canary_hit_rate{", "re4_canary_users{", "re4_canary_items{", "_difference{"}
    metrics = (await shop.client.get("/metrics")).text
    assert {name for name in shown if name in metrics} == shown
    remove_canary(shop.root)
    await shop.state.canary.refresh()
    await shop.state.canary_quality.check()
    metrics = (await shop.client.get("/metrics")).text
    assert not {name for name in shown if name in metrics}


async def test_other_workers_follow_the_verdict(shop: Shop) -> None:
    await shop.start()
    run = shop.state.canary.run
    assert run is not None
    assert await shop.state.canary_quality._store.abort(run)
    assert not await shop.state.canary_quality._store.abort(run)
    await shop.state.canary_quality.check()
    assert shop.state.canary.aborted
    assert "re4_canary_aborts_total 0.0" in (await shop.client.get("/metrics")).text


async def test_without_the_setting_nothing_is_aborted(
    root: Path, publish: Publish, serve: Serve
) -> None:
    publish("second", current=False)
    async with serve(canary_on_worse="report") as client:
        shop = Shop(root, client)
        await shop.start()
        await make_it_worse(shop)
        shop.state.canary_quality._min_users = 5
        await shop.state.canary_quality.check()
        assert shop.state.canary.loaded is not None
        assert (await shop.quality())["quality"]["verdict"] == "worse"


async def test_in_shadow_mode_there_is_nothing_to_compare(shop: Shop) -> None:
    await shop.start(shadow=True)
    await shop.ask("anna")
    assert await shop.quality() == {**NO_CANARY, "release": "second"}

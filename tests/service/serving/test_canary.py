"""The canary follows its file; a share of the users is answered by it, and named so everywhere."""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest

from index.release.canary_file import CanaryRelease, remove_canary, write_canary
from index.release.manifest import INDEX
from index.retrieval.query import Query
from service.serving.canary import CanaryLoader, is_in_share
from service.serving.release_loader import ReleaseLoader
from service.telemetry.canary_metrics import CanaryMetrics
from service.telemetry.metrics import Metrics
from tests.service.application import Clock, state_behind

pytestmark = pytest.mark.anyio

Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
USERS = [f"user-{number}" for number in range(40)]


def let(root: Path, release: str, share: float = 0.5, shadow: bool = False) -> None:
    write_canary(root, CanaryRelease(release=release, share=share, shadow=shadow))


def test_a_share_of_the_users_is_stable_nested_and_its_own_for_each_release() -> None:
    users = [f"user-{number}" for number in range(20_000)]
    tenth = {user for user in users if is_in_share(user, "second", 0.1)}
    assert len(tenth) == pytest.approx(2000, abs=200)
    assert tenth == {user for user in users if is_in_share(user, "second", 0.1)}
    assert tenth < {user for user in users if is_in_share(user, "second", 0.2)}
    other = {user for user in users if is_in_share(user, "third", 0.1)}
    assert len(tenth & other) == pytest.approx(200, abs=60)
    assert all(is_in_share(user, "second", 1) for user in users)


@pytest.fixture
async def loader(root: Path, publish: Publish) -> CanaryLoader:
    """Beside the live release first; the release second exists."""
    publish("second")
    publish("first")
    metrics = Metrics()
    live = ReleaseLoader(root, metrics)
    await live.refresh()
    return CanaryLoader(root, live, CanaryMetrics(metrics), Clock())


def in_use(loader: CanaryLoader) -> str | None:
    return loader.release and loader.release.id


async def test_the_canary_follows_its_file(root: Path, loader: CanaryLoader) -> None:
    await loader.refresh()
    assert (in_use(loader), loader.variants_of(USERS)) == (None, None)
    let(root, "second")
    await loader.refresh()
    release = loader.release
    assert release is not None
    assert release.id == "second"
    variants = loader.variants_of([*USERS, None])
    assert variants == ["canary" if is_in_share(u, "second", 0.5) else "current" for u in USERS] + [
        "current"
    ]
    let(root, "second", shadow=True)
    await loader.refresh()
    assert loader.release is release  # which is not opened again
    assert loader.variants_of(USERS) == ["current"] * len(USERS)
    remove_canary(root)
    await loader.refresh()
    assert in_use(loader) is None


async def test_a_promoted_canary_ends(root: Path, publish: Publish, loader: CanaryLoader) -> None:
    let(root, "second")
    await loader.refresh()
    publish("second")
    await loader.refresh()
    assert (in_use(loader), loader.failure) == (None, None)


async def test_no_canary_is_loaded_before_a_live_release(root: Path, publish: Publish) -> None:
    publish("second", current=False)
    let(root, "second")
    metrics = Metrics()
    loader = CanaryLoader(root, ReleaseLoader(root, metrics), CanaryMetrics(metrics))
    await loader.refresh()
    assert (loader.loaded, loader.failure) == (None, None)


async def test_a_canary_that_cannot_be_loaded_is_reported_and_tried_again(
    root: Path, loader: CanaryLoader
) -> None:
    index = root / "releases" / "second" / INDEX
    content = index.read_bytes()
    index.write_bytes(content[:-1])
    let(root, "second")
    await loader.refresh()
    assert loader.loaded is None
    assert loader.failure is not None
    assert loader.failure.release == "second"
    assert loader.metrics.failing._value.get() == 1
    index.write_bytes(content)
    await loader.refresh()
    assert loader.loaded is None
    loader._clock.now = 60.0  # type: ignore[attr-defined]
    await loader.refresh()
    assert (in_use(loader), loader.failure) == ("second", None)
    assert loader.metrics.failing._value.get() == 0


async def test_a_damaged_file_ends_the_canary(root: Path, loader: CanaryLoader) -> None:
    let(root, "second")
    await loader.refresh()
    (root / "canary").write_text("{")
    await loader.refresh()
    assert loader.loaded is None
    assert loader.failure is not None
    assert "python -m index abort" in loader.failure.message
    let(root, "second")
    await loader.refresh()
    assert (in_use(loader), loader.failure) == ("second", None)


# --- over HTTP ---


async def ask(client: httpx.AsyncClient, user: str) -> tuple[str, str | None]:
    body = {"user_id": user, "sequence": ["item-1"]}
    answer = (await client.post("/recommend", json=body)).json()
    return answer["release"], answer.get("variant")


async def test_answers_metrics_and_the_release_name_the_variant(
    root: Path, publish: Publish, serve: Serve
) -> None:
    publish("second", current=False)
    async with serve() as client:
        assert {await ask(client, user) for user in USERS} == {("first", None)}
        state = state_behind(client)
        let(root, "second")
        await state.canary.refresh()
        expected = {
            user: ("second", "canary") if is_in_share(user, "second", 0.5) else ("first", "current")
            for user in USERS
        }
        assert {user: await ask(client, user) for user in USERS} == expected
        requests = [{"user_id": user, "sequence": ["item-1"]} for user in USERS]
        requests.append({"sequence": ["item-1"]})
        batch = (await client.post("/recommend/batch", json={"requests": requests})).json()
        named = [(answer["release"], answer["variant"]) for answer in batch["answers"]]
        assert named == [*expected.values(), ("first", "current")]
        metrics = (await client.get("/metrics")).text
        canaries = [variant for _, variant in expected.values()].count("canary")
        line = 're4_variant_responses_total{source="interests",variant="canary"}'
        assert f"{line} {2.0 * canaries}" in metrics
        assert "re4_canary_share 0.5" in metrics
        assert (await client.get("/release")).json()["canary"]["release"] == "second"


async def test_items_of_a_batch_are_those_of_each_variant_alone(
    root: Path, publish: Publish, serve: Serve
) -> None:
    publish("second", current=False)
    async with serve() as client:
        let(root, "second")
        await state_behind(client).canary.refresh()
        requests = [{"user_id": user, "sequence": ["item-1"], "k": 5} for user in USERS[:8]]
        batch = (await client.post("/recommend/batch", json={"requests": requests})).json()
        alone = [(await client.post("/recommend", json=request)).json() for request in requests]
    shown = [[item["item_id"] for item in answer["items"]] for answer in batch["answers"]]
    assert shown == [[item["item_id"] for item in answer["items"]] for answer in alone]
    assert len({tuple(items) for items in shown}) == 2


async def test_withdrawn_items_are_in_no_answer_of_either(
    root: Path, publish: Publish, serve: Serve
) -> None:
    publish("second", current=False)
    async with serve() as client:
        let(root, "second")
        await state_behind(client).canary.refresh()
        for withdrawn in ("item-5", "item-6"):
            await client.put(f"/items/{withdrawn}", json={"available": False})
            for user in USERS[:8]:
                body = {"user_id": user, "sequence": ["item-1"], "k": 40}
                items = (await client.post("/recommend", json=body)).json()["items"]
                assert withdrawn not in {item["item_id"] for item in items}


async def test_the_access_log_names_the_variant(
    root: Path, publish: Publish, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    publish("second", current=False)
    let(root, "second", share=1)
    async with serve(access_log=True) as client:
        await state_behind(client).canary.refresh()
        with caplog.at_level(logging.INFO):
            await ask(client, "anna")
    assert [r.variant for r in caplog.records if hasattr(r, "variant")] == ["canary"]


async def test_a_canary_that_ends_between_admission_and_batch_is_answered_by_the_live_release(
    root: Path, publish: Publish, serve: Serve
) -> None:
    publish("second", current=False)
    async with serve() as client:
        state = state_behind(client)
        let(root, "second", share=1)
        await state.canary.refresh()
        assert await ask(client, "anna") == ("second", "canary")
        state.canary.loaded = None
        result = await state.engine.answer(Query(["item-1"], 3), lambda: False, None, ["canary"])
        assert (result.release.id, result.variant) == ("first", None)

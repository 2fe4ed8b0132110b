"""The release in use follows `current`; a new release that fails leaves the old one in use."""

import asyncio
import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.ann.kernel_choice import find_kernel
from index.release.atomic_io import replace_text
from index.release.errors import ReleaseError
from index.release.lock import deletion_lock
from index.release.manifest import CURRENT, INDEX
from index.release.reading import Release
from index.retrieval.query import Answer, Query
from index.retrieval.retriever import Retriever
from service.app import create_app
from service.serving import release_loader as loader_module
from service.serving.release_loader import ReleaseLoader
from service.settings import MAX_K, Settings
from service.telemetry.metrics import Metrics
from tests.service.application import Clock

pytestmark = pytest.mark.anyio

Publish = Callable[..., Path]
ClientOf = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def live(root: Path) -> ReleaseLoader:
    return ReleaseLoader(root, Metrics(), Clock())


def pass_time(live: ReleaseLoader, seconds: float) -> None:
    clock = live._clock
    assert isinstance(clock, Clock)
    clock.now += seconds


def write_current(root: Path, text: str) -> None:
    replace_text(root / CURRENT, text)


def damage(folder: Path) -> None:
    """Flip a byte of the index."""
    path = folder / INDEX
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def in_use(live: ReleaseLoader) -> str | None:
    return live.release and live.release.id


async def test_before_the_first_release_there_is_no_failure(live: ReleaseLoader) -> None:
    assert not await live.refresh()
    assert (live.release, live.failure) == (None, None)


async def test_it_follows_current_forward_and_back(live: ReleaseLoader, publish: Publish) -> None:
    publish("first")
    assert await live.refresh()
    assert in_use(live) == "first"
    assert not await live.refresh(), "it is in use already"

    publish("second")
    assert await live.refresh()
    assert in_use(live) == "second"

    publish("first")
    assert await live.refresh()
    assert in_use(live) == "first"


async def test_a_release_no_longer_in_use_is_closed(live: ReleaseLoader, publish: Publish) -> None:
    folder = publish("first")
    await live.refresh()
    with deletion_lock(folder) as is_free:
        assert not is_free
    publish("second")
    await live.refresh()
    with deletion_lock(folder) as is_free:
        assert is_free


async def test_a_broken_release_leaves_the_old_release_in_use(
    live: ReleaseLoader, publish: Publish
) -> None:
    publish("first")
    await live.refresh()
    damage(publish("second"))

    with pytest.raises(ReleaseError, match="sha256"):
        await live.refresh()
    assert in_use(live) == "first"
    assert live.failure is not None
    assert live.failure.pointer.id == "second"
    assert "sha256" in live.failure.message


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The releases that the loader tried to open."""
    opened: list[str] = []
    original_open = loader_module.open_release

    def open_release(folder: Path, *rest: Any) -> Release:
        opened.append(folder.name)
        return original_open(folder, *rest)

    monkeypatch.setattr(loader_module, "open_release", open_release)
    return opened


async def fail(live: ReleaseLoader) -> None:
    with pytest.raises(ReleaseError):
        await live.refresh()


async def test_a_broken_release_is_retried_with_exponential_backoff(
    live: ReleaseLoader, publish: Publish, openings: list[str]
) -> None:
    damage(publish("first"))
    await fail(live)
    for wait_s in (2, 4, 8, 16, 32, 60, 60):
        pass_time(live, wait_s - 0.1)
        before = len(openings)
        assert not await live.refresh(), "not yet"
        assert len(openings) == before
        pass_time(live, 0.1)
        await fail(live)
        assert len(openings) == before + 1


async def test_it_is_retried_at_once_if_current_is_written_or_on_request(
    live: ReleaseLoader, publish: Publish, root: Path, openings: list[str]
) -> None:
    damage(publish("first"))
    await fail(live)
    write_current(root, "first\n")
    await fail(live)
    with pytest.raises(ReleaseError):
        await live.refresh(now=True)
    publish("second")
    assert await live.refresh()

    assert openings == ["first", "first", "first", "second"]
    assert live.failure is None


async def test_a_repaired_release_is_loaded(live: ReleaseLoader, publish: Publish) -> None:
    folder = publish("first")
    damage(folder)
    await fail(live)
    shutil.rmtree(folder)
    publish("first", current=False)
    pass_time(live, 2)

    assert await live.refresh()
    assert in_use(live) == "first"


@pytest.mark.parametrize("text", ["", "../first", "no/such", "x" * 5000, "\x00", "missing\n"])
async def test_an_invalid_current_leaves_the_old_release_in_use(
    live: ReleaseLoader, publish: Publish, root: Path, text: str
) -> None:
    publish("first")
    await live.refresh()
    write_current(root, text)

    await fail(live)
    assert in_use(live) == "first"
    write_current(root, "first\n")
    assert not await live.refresh()
    assert live.failure is None, "the failure is cleared"


async def test_current_may_vanish(live: ReleaseLoader, publish: Publish, root: Path) -> None:
    publish("first")
    await live.refresh()
    (root / CURRENT).unlink()

    await fail(live)
    assert in_use(live) == "first"


async def test_any_error_of_opening_leaves_the_old_release_in_use(
    live: ReleaseLoader, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object) -> Release:
        raise MemoryError

    publish("first")
    await live.refresh()
    publish("second")
    monkeypatch.setattr(loader_module, "open_release", out_of_memory)

    await fail(live)
    assert in_use(live) == "first"


async def test_a_release_is_warmed_up_with_the_largest_k_before_it_is_in_use(
    live: ReleaseLoader, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = []
    original_recommend = Retriever.recommend

    def recommend(self: Retriever, queries: list[Query]) -> list[Answer]:
        assert live.release is None
        body.extend(query.k for query in queries)
        return original_recommend(self, queries)

    monkeypatch.setattr(Retriever, "recommend", recommend)
    publish("first")
    await live.refresh()
    assert in_use(live) == "first"
    assert {1, MAX_K} <= set(body)


async def test_requests_are_answered_while_a_release_is_loaded(
    serve: Serve, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, proceed = threading.Event(), threading.Event()
    original_open = loader_module.open_release

    def open_when_told(folder: Path, *rest: Any) -> Release:
        opening.set()
        assert proceed.wait(30)
        return original_open(folder, *rest)

    async with serve() as client:
        monkeypatch.setattr(loader_module, "open_release", open_when_told)
        publish("second")
        async with asyncio.timeout(30):
            while not opening.is_set():
                await asyncio.sleep(0)
        assert await release_of_a_response(client) == "first"
        proceed.set()
        async with asyncio.timeout(30):
            while await release_of_a_response(client) == "first":
                await asyncio.sleep(0)


async def release_of_a_response(client: httpx.AsyncClient) -> str:
    response = await client.post("/recommend", json={"sequence": ["item-1"]})
    assert response.status_code == 200
    return str(response.json()["release"])


async def test_every_response_is_from_one_release_while_releases_change(
    serve: Serve, publish: Publish
) -> None:
    """The two releases give other scores, so a mixture would be the answer of neither."""
    answers: dict[str, list[str]] = {}
    body = {"sequence": ["item-1", "item-2"], "k": 10}
    async with serve() as client:
        for release in ("first", "second"):
            publish(release)
            async with asyncio.timeout(30):
                while (await client.get("/readyz")).json()["release"] != release:
                    await asyncio.sleep(0)
            answers[release] = items_of((await client.post("/recommend", json=body)).json())
        assert answers["first"] != answers["second"]

        async def requests() -> None:
            while not done.is_set():
                response = await client.post("/recommend", json=body)
                assert response.status_code == 200
                answer = response.json()
                assert items_of(answer) == answers[answer["release"]]
                seen.append(answer["release"])

        done, seen = asyncio.Event(), list[str]()
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(requests())
            for round_ in range(10):
                publish("first" if round_ % 2 == 0 else "second")
                count = len(seen)
                while len(seen) < count + 20:
                    await asyncio.sleep(0)
            done.set()

    assert {"first", "second"} == set(seen)


def items_of(answer: dict[str, Any]) -> list[str]:
    """Without scores, whose last bits depend on the rest of the batch."""
    return [item["item_id"] for item in answer["items"]]


# --- over HTTP ---


@pytest.fixture
def client_of(settings: Callable[..., Settings]) -> ClientOf:
    """A function that serves the root as it is, with or without a release."""

    @asynccontextmanager
    async def running(**changes: Any) -> Any:
        app = create_app(settings(**changes))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            yield client

    return running


async def test_without_a_release_it_is_alive_and_not_ready(
    client_of: ClientOf, publish: Publish
) -> None:
    async with client_of() as client:
        assert (await client.get("/livez")).json() == {"status": "alive"}
        for response in (
            await client.get("/readyz"),
            await client.post("/recommend", json={"sequence": ["item-1"]}),
        ):
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"]["code"] == "not_ready"
        state = (await client.get("/release")).json()
        assert (state["release"], state["last_reload_error"]) == (None, None)
        assert "current: no such file" in state["why_none"]
        assert "run: python -m index publish DRAFT" in state["why_none"]
        publish()
        async with asyncio.timeout(30):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
        assert await release_of_a_response(client) == "first"


async def test_get_release_shows_the_release_in_use_and_the_last_failure(
    serve: Serve, publish: Publish
) -> None:
    async with serve() as client:
        damage(publish("second"))
        async with asyncio.timeout(30):
            while (state := (await client.get("/release")).json())["last_reload_error"] is None:
                await asyncio.sleep(0.01)
        metrics = (await client.get("/metrics")).text

    assert state["release"]["id"] == "first"
    assert state["why_none"] is None
    assert state["release"]["items"] == 40
    assert state["release"]["interests"] == 3
    assert state["release"]["encoder"] == "re4"
    assert state["release"]["index"]["recall"] == 1.0
    assert state["release"]["kernel"] == find_kernel().name
    assert state["release"]["searched_by"] == "flat"
    assert state["release"]["metrics"] == {"validation": {"recall@50": 0.2}}
    assert state["last_reload_error"]["release"] == "second"
    assert "sha256" in state["last_reload_error"]["message"]
    assert "re4_reload_failing 1.0" in metrics
    assert 're4_reloads_total{outcome="failed"} 1.0' in metrics
    assert "re4_reload_failures_total{stage=" in metrics
    assert 're4_release_info{release="first"} 1.0' in metrics


async def test_reload_needs_the_key(serve: Serve, publish: Publish) -> None:
    async with serve(admin_key="sesam", reload_interval_s=3600) as client:
        publish("second")
        for key in (None, "", "Bearer", "Bearer ", "Bearer sesam2", "sesam", "Basic sesam", "é"):
            headers = {} if key is None else {"authorization": key.encode()}
            response = await client.post("/admin/reload", headers=headers)
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "unauthorized"
            assert "sesam" not in response.text
        assert await release_of_a_response(client) == "first"


async def test_reload_loads_the_current_release(serve: Serve, publish: Publish) -> None:
    headers = {"authorization": "Bearer sesam"}
    async with serve(admin_key="sesam", reload_interval_s=3600) as client:
        same = await client.post("/admin/reload", headers=headers)
        publish("second")
        other = await client.post("/admin/reload", headers=headers)
        damage(publish("third"))
        broken = await client.post("/admin/reload", headers=headers)
        answered = await release_of_a_response(client)

    assert same.json() == {"release": "first", "changed": False}
    assert other.json() == {"release": "second", "changed": True}
    assert broken.status_code == 409
    assert broken.json()["error"]["code"] == "release_refused"
    assert answered == "second"

"""A release whose index is in Milvus: served by a server of its own, which ends and comes back."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.ann.milvus_client import MilvusClient
from index.ann.milvus_engine import MilvusEngine
from index.release.build import build
from index.release.reading import open_release
from index.retrieval.query import Query
from service.settings import Settings

pytest.importorskip("pymilvus")
from milvus_lite.adapter.grpc.server import start_server_in_thread

Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
pytestmark = pytest.mark.anyio

POPULAR: dict[str, Any] = {"sequence": ["unknown"], "k": 3}
ASKED: dict[str, Any] = {"sequence": ["item-3", "item-9"], "k": 7}


class MilvusServer:
    """A milvus-lite behind a port, as `milvus-lite server` runs it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._server, self._data, _ = start_server_in_thread(str(self._folder), port=self._port)

    def stop(self) -> None:
        self._server.stop(grace=None).wait()
        self._data.close()


@pytest.fixture
def milvus(tmp_path: Path) -> Iterator[MilvusServer]:
    server = MilvusServer(tmp_path / "milvus")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def remote(publish: Publish, milvus: MilvusServer) -> dict[str, Any]:
    """Settings of a service whose release has its index there."""
    engine = MilvusEngine(milvus.uri)
    build(publish(), 0.9, 20, engine=engine, index_type="FLAT")
    engine.close()
    return {"engine": "milvus", "engine_uri": milvus.uri, "engine_timeout_ms": 2000}


async def test_it_gives_what_the_retriever_gives(
    serve: Serve, remote: dict[str, Any], root: Path
) -> None:
    engine = MilvusEngine(remote["engine_uri"])
    retriever = open_release(root / "releases" / "first", engine=engine).retriever
    [answer] = retriever.recommend([Query(ASKED["sequence"], 7)])
    expected = [retriever.catalog.id(int(row)) for row in answer.rows]
    async with serve(**remote) as client:
        responses = await asyncio.gather(*(client.post("/recommend", json=ASKED) for _ in range(9)))
        for response in responses:
            assert [item["item_id"] for item in response.json()["items"]] == expected
        batch = await client.post("/recommend/batch", json={"requests": [ASKED, POPULAR]})
        assert [answer["source"] for answer in batch.json()["answers"]] == ["interests", "popular"]
        similar = await client.get("/items/item-3/similar")
        assert len(similar.json()["items"]) == 39
        release = (await client.get("/release")).json()["release"]
        assert release["searched_by"] == "milvus"
    engine.close()


async def test_while_it_is_down_requests_are_refused_at_once_and_popular_items_are_given(
    serve: Serve, remote: dict[str, Any], milvus: MilvusServer
) -> None:
    limits = {"breaker_threshold": 2, "breaker_cooldown_s": 0.2, "deadline_ms": 10_000}
    async with serve(**{**remote, **limits, "engine_timeout_ms": 300}) as client:
        milvus.stop()
        for _ in range(3):
            response = await client.post("/recommend", json=ASKED)
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "engine_unavailable"
            assert response.headers["retry-after"] == "1"
        assert "re4_engine_circuit_open 1.0" in (await client.get("/metrics")).text
        start = time.perf_counter()
        popular = await client.post("/recommend", json=POPULAR)
        assert popular.json()["source"] == "popular"
        mixed = await client.post("/recommend/batch", json={"requests": [ASKED, POPULAR]})
        codes = [a.get("error", {}).get("code", a.get("source")) for a in mixed.json()["answers"]]
        assert codes == ["engine_unavailable", "popular"]
        assert time.perf_counter() - start < 5
        milvus.start()
        while (await client.post("/recommend", json=ASKED)).status_code == 503:
            assert time.perf_counter() - start < 60
            await asyncio.sleep(0.1)
        assert "re4_engine_circuit_open 0.0" in (await client.get("/metrics")).text


async def test_the_event_loop_goes_on_while_it_searches(
    serve: Serve, remote: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    search = MilvusClient.search

    def slow(*arguments: Any) -> Any:
        time.sleep(0.5)
        return search(*arguments)

    async with serve(**remote, deadline_ms=10_000) as client:
        await client.post("/recommend", json=ASKED)
        monkeypatch.setattr(MilvusClient, "search", slow)
        asked = [asyncio.create_task(client.post("/recommend", json=ASKED)) for _ in range(3)]
        turns = 0
        while not all(task.done() for task in asked):
            await asyncio.sleep(0.01)
            turns += 1
        statuses = [task.result().status_code for task in asked]
    assert turns > 20
    assert statuses in ([200, 200, 200], [503, 503, 503])


def test_a_local_file_is_for_one_worker(settings: Callable[..., Settings]) -> None:
    for changes, message in (
        ({"engine_uri": "items.db", "workers": 2}, "a local file is for one process"),
        ({"engine_uri": "items.db", "engine": "faiss"}, "is of --engine milvus"),
        ({"engine_uri": None}, "needs the URI"),
        ({"engine_uri": "items"}, "give http://HOST"),
    ):
        with pytest.raises(ValueError, match=message):
            settings(**{"engine": "milvus", **changes})

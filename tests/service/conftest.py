"""Small releases as publish would write them, and the app that serves them with a real Redis."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from fastapi import FastAPI

from index.ann.build import build_index
from index.ann.spec import IndexMeasurement, IndexSpec
from index.encoders import build_encoder
from index.release.atomic_io import replace_text
from index.release.manifest import (
    CURRENT,
    INDEX,
    RELEASES,
    DataWindow,
    EncoderSpec,
    Manifest,
    digest,
    write_manifest,
)
from index.release.writing import write_parts
from index.retrieval.catalog import Catalog
from service.app import create_app
from service.settings import PREFIX, Settings
from tests.evidence.redis_servers import RedisServer

DIM, INTERESTS, LENGTH, ITEMS = 8, 3, 5, 40

Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
def _no_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(variable)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path is short enough for a socket, which tmp_path may not be."""
    folder = Path(tempfile.mkdtemp(prefix="re4-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def tcp(short_path: Path) -> Iterator[RedisServer]:
    """A Redis on a TCP port, which can be stopped and started."""
    server = RedisServer(short_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of releases/ and `current`; empty at first."""
    return tmp_path


@pytest.fixture
def publish(root: Path) -> Publish:
    """A function that writes a release, unless it exists, and makes it current.

    Each id gives different recommendations.
    """

    def write(release_id: str = "first", current: bool = True) -> Path:
        folder = root / RELEASES / release_id
        if not folder.exists():
            write_release(folder, release_id)
        if current:
            replace_text(root / CURRENT, f"{release_id}\n")
        return folder

    return write


def write_release(
    folder: Path, release_id: str, encoder_name: str = "re4", **more: bool | int
) -> None:
    """more: arguments of the encoder."""
    seed = sum(release_id.encode())
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((ITEMS + 1, DIM), dtype=np.float32)
    vectors[0] = 0
    arguments: dict[str, Any] = {"dim": DIM, "interests": INTERESTS, **more}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = build_encoder(encoder_name, arguments).eval()
        if encoder.reads_gaps:
            for weight in encoder.parameters():  # those of times begin at 0, without effect
                torch.nn.init.normal_(weight)
    catalog = Catalog(
        ids=[f"item-{row}" for row in range(1, ITEMS + 1)],
        popularity=np.arange(ITEMS, 0, -1),
        categories=[f"category {row % 4}" if row % 4 else None for row in range(1, ITEMS + 1)],
        titles=[None] * ITEMS,
    )
    interests = generator.standard_normal((4, INTERESTS, DIM), dtype=np.float32)
    files = dict(write_parts(folder, encoder, vectors, catalog, interests))
    build_index(vectors, IndexSpec()).write(folder / INDEX)
    files[INDEX] = digest(folder / INDEX)
    manifest = Manifest(
        id=release_id,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        code_version="test",
        encoder=EncoderSpec(name=encoder_name, arguments=arguments, history_length=LENGTH),
        data=DataWindow(interactions=900, users=30, items=ITEMS, first=0.0, last=9.5),
        training={"seed": seed},
        metrics={"validation": {"recall@50": 0.2}},
        index=IndexMeasurement(spec=IndexSpec(), recall=1.0, k=50, queries=4, microseconds=5.0),
        files=files,
    )
    write_manifest(folder, manifest)


@pytest.fixture
def settings(root: Path, short_path: Path) -> Callable[..., Settings]:
    """Settings for tests: fast reloads, and long time limits for Redis."""

    def make(**changes: Any) -> Settings:
        defaults: dict[str, Any] = {
            "releases": root,
            "embedded_redis_folder": short_path,
            "redis_timeout_ms": 5000,
            "deadline_ms": 60_000,
            "reload_interval_s": 0.01,
            "drain_s": 0,
        }
        return Settings(**{**defaults, **changes})

    return make


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client


@pytest.fixture
def serve(settings: Callable[..., Settings], publish: Publish) -> Serve:
    """A function that serves release `first` in this process with the given settings."""

    @asynccontextmanager
    async def serving(**changes: Any) -> AsyncIterator[httpx.AsyncClient]:
        publish()
        app = create_app(settings(**changes))
        async with client_of(app) as client:
            await app.state.service.live.refresh()
            yield client

    return serving


ADMIN_KEY = "sesam-open-up"


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a process that serves release `first`, with ADMIN_KEY as admin key."""
    root = tmp_path_factory.mktemp("root")
    write_release(root / RELEASES / "first", "first")
    replace_text(root / CURRENT, "first\n")
    with server_process(root, admin_key=ADMIN_KEY) as url:
        yield url


@contextmanager
def server_process(root: Path | None, loads: int = 1, **settings: object) -> Iterator[str]:
    """The URL of a process that serves the root, if one is given, once it has loaded so many
    releases."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    with tempfile.TemporaryDirectory(prefix="re4-") as history:
        source = {} if root is None else {"releases": root}
        options = {
            **source, "embedded_redis_folder": history, "port": 0, "drain_s": 0,
            "deadline_ms": 5000, "redis_timeout_ms": 5000, **settings,
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            env=environment
            | {PREFIX + name.upper(): str(value) for name, value in options.items()},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        try:
            lines = map(json.loads, process.stderr)
            port = next(line["port"] for line in lines if line["event"] == "listening")
            loaded = (line for line in lines if line["event"] == "release loaded")
            for _ in range(loads):
                next(loaded)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.communicate(timeout=60)

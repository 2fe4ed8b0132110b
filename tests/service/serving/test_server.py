"""The real process: its libraries, its log, and its end."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from index.release.manifest import RELEASES
from index.retrieval.query import Query
from service.errors import ClientDisconnectedError
from service.serving.batching import Engine
from service.serving.outcome import QueryResult
from service.serving.server import DrainingServer
from service.settings import Settings
from tests.service.threaded import served_in_a_thread

Publish = Callable[..., Path]

REQUEST = {"user_id": "secret-user", "sequence": ["item-1", "secret-item"], "k": 3}


_LONG_TIMEOUTS = ("--port", "0", "--deadline-ms", "60000", "--redis-timeout-ms", "5000")


_PATIENCE_S = 180


@contextmanager
def default_signals(*numbers: int) -> Iterator[None]:
    """For processes started inside: nohup and shells without job control have these ignored."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def kill_all(process: subprocess.Popen[str]) -> None:
    """End it and its workers, which would otherwise drain first and keep its pipes open."""
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()


class Process:
    """`python -m service` with a root, and its log line by line."""

    def __init__(self, *arguments: str) -> None:
        with default_signals(signal.SIGHUP, signal.SIGINT):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service", *_LONG_TIMEOUTS, *arguments],
                stderr=subprocess.PIPE,
                text=True,
            )
        self.lines: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.wait_for('listening')['port']}"

    def wait_for(self, *events: str) -> dict[str, Any]:
        """The next line with one of the events; every line must be a JSON object."""
        for line in self._log():
            if line["event"] in events:
                return line
        raise AssertionError(f"ended without {events}: {self.lines}")

    def _log(self) -> Iterator[dict[str, Any]]:
        """The lines that come; one that does not come in time ends the process and the log."""
        assert self._process.stderr is not None
        impatience = threading.Timer(_PATIENCE_S, kill_all, [self._process])
        impatience.start()
        try:
            for text in self._process.stderr:
                self.lines.append(json.loads(text))
                yield self.lines[-1]
        finally:
            impatience.cancel()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def listening(self) -> set[int]:
        """The processes that listen: this one, or its workers."""
        return self._processes_with("listening")

    @property
    def loaded(self) -> set[int]:
        """The processes that have loaded a release."""
        return self._processes_with("release loaded")

    def _processes_with(self, event: str) -> set[int]:
        return {line["process"] for line in self.lines if line["event"] == event}

    def send(self, signal_number: int) -> None:
        self._process.send_signal(signal_number)

    def end(self) -> int:
        """The exit status, once the process has ended and its whole log is in `lines`."""
        for _ in self._log():
            pass
        return self._process.wait(30)

    def kill(self) -> None:
        kill_all(self._process)
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()


@contextmanager
def running(root: Path, history: Path, *arguments: str) -> Iterator[Process]:
    (root / RELEASES).mkdir(exist_ok=True)
    process = Process("--releases", str(root), "--embedded-redis-folder", str(history), *arguments)
    try:
        yield process
    finally:
        process.kill()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGHUP])
def test_it_answers_while_it_drains(
    root: Path, short_path: Path, publish: Publish, signal_number: int
) -> None:
    publish()
    event = {"user_id": "secret-user", "item_id": "secret-item"}
    with running(root, short_path, "--drain-s", "3600") as process:
        process.wait_for("release loaded")
        with httpx.Client(base_url=process.url) as client:
            answer = client.post("/recommend", json=REQUEST)
            assert answer.status_code == 200
            assert answer.json()["release"] == "first"
            assert client.post("/events", json=event).status_code == 200
            assert client.post("/recommend", content="secret{").status_code == 422

            process.send(signal_number)
            process.wait_for("draining")
            process.send(signal.SIGHUP)  # a closing terminal sends several
            not_ready = client.get("/readyz")
            assert not_ready.status_code == 503
            assert not_ready.json()["error"]["code"] == "not_ready"
            late = client.post("/recommend", json=REQUEST)
            assert late.status_code == 200
            assert late.headers["connection"] == "close"
        process.send(signal.SIGTERM)  # a second one ends it at once
        assert process.end() == 0

    assert "secret" not in json.dumps(process.lines)
    assert {"time", "level", "logger", "event"} <= set.intersection(*map(set, process.lines))
    [warning] = [line for line in process.lines if line["level"] != "info"]
    assert warning["event"].startswith("OPEN: ")


@pytest.mark.parametrize(
    ("signal_number", "drain_s"),
    [(signal.SIGTERM, "0.01"), (signal.SIGHUP, "0.01"), (signal.SIGINT, "3600")],
)
def test_it_ends_after_a_signal(
    root: Path, short_path: Path, signal_number: int, drain_s: str
) -> None:
    with running(root, short_path, "--drain-s", drain_s) as process:
        process.send(signal_number)
        assert process.end() == 0


def test_a_log_that_nobody_reads_stops_nothing(
    root: Path, short_path: Path, publish: Publish
) -> None:
    """A pipe holds some 280 lines of the access log."""
    publish()
    with running(root, short_path, "--access-log", "--drain-s", "0") as process:
        process.wait_for("release loaded")
        with httpx.Client(base_url=process.url, timeout=10) as client:
            statuses = {client.get("/livez").status_code for _ in range(1000)}
        process.send(signal.SIGTERM)
        assert process._process.wait(30) == 0
        assert statuses == {200}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_service_leaves_no_process_behind(
    root: Path, short_path: Path, workers: str
) -> None:
    with running(root, short_path, "--workers", workers, "--drain-s", "0") as process:
        children = psutil.Process(process.pid).children(recursive=True)
        [redis] = [child for child in children if "redis-server" in child.name()]
        process.send(signal.SIGKILL)
        gone, alive = psutil.wait_procs(children, timeout=30)
        assert redis in gone
        assert not alive


@pytest.mark.parametrize("command", [(), ("--workers", "2"), ("export-events",)])
@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_that_is_no_root_is_refused_and_left_as_it_is(
    root: Path, command: tuple[str, ...], exists: bool
) -> None:
    """It may be a mistyped name."""
    folder = root / "shpo"
    if exists:
        folder.mkdir()
    completed = subprocess.run(
        [sys.executable, "-m", "service", *command, "--releases", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert completed.returncode == 1
    assert completed.stderr.splitlines()[-1].startswith("Error: ")
    assert f"{folder}: {'holds no releases' if exists else 'no such folder'}" in completed.stderr
    assert "Traceback" not in completed.stderr
    assert [*root.rglob("*")] == ([folder] if exists else [])


def test_an_unusable_redis_folder_is_refused_in_one_sentence(root: Path) -> None:
    (root / RELEASES).mkdir()
    arguments = ["--releases", str(root), "--embedded-redis-folder", str(root / ("x" * 200))]
    completed = subprocess.run(
        [sys.executable, "-m", "service", *arguments], capture_output=True, text=True, check=False
    )

    assert completed.returncode != 0
    assert "choose a shorter --embedded-redis-folder" in completed.stderr
    assert "Traceback" not in completed.stderr


def test_torch_and_faiss_use_one_thread() -> None:
    program = (
        "import sys\n"
        "from service.__main__ import limit_threads\n"
        "assert 'torch' not in sys.modules, 'too late to limit it'\n"
        "limit_threads()\n"
        "import torch, faiss\n"
        "print(torch.get_num_threads(), faiss.omp_get_max_threads())\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    completed = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert completed.stdout.split() == ["1", "1"]


def port_of(server: DrainingServer) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


def test_uvloop_and_httptools_are_used(settings: Callable[..., Settings]) -> None:
    with (
        served_in_a_thread(settings(port=0)) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port_of(server)}") as client,
    ):
        assert client.get("/livez").status_code == 200
        [connection] = server.server_state.connections
        assert isinstance(connection, HttpToolsProtocol)
        assert type(connection.loop).__module__.startswith("uvloop")


def test_a_client_that_disconnects_is_noticed(
    settings: Callable[..., Settings], publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, noticed = threading.Event(), threading.Event()

    async def answer(
        self: Engine, query: Query, is_gone: Callable[[], bool], *_: object
    ) -> QueryResult:
        assert not is_gone()
        waiting.set()
        while not is_gone():
            await asyncio.sleep(0)
        noticed.set()
        raise ClientDisconnectedError

    publish()
    monkeypatch.setattr(Engine, "answer", answer)
    body = b'{"sequence":[]}'
    head = b"POST /recommend HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
    with served_in_a_thread(settings(port=0)) as server:
        while httpx.get(f"http://127.0.0.1:{port_of(server)}/readyz").status_code != 200:
            pass
        with socket.create_connection(("127.0.0.1", port_of(server))) as connection:
            connection.sendall(head + body)
            assert waiting.wait(30)
        assert noticed.wait(30)


def exchange(port: int, data: bytes) -> bytes:
    """All that the server sends for these bytes before it closes the connection."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_an_endless_chunked_body_is_rejected(settings: Callable[..., Settings]) -> None:
    head = b"POST /recommend HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with served_in_a_thread(settings(port=0)) as server:
        answer = exchange(port_of(server), head + chunk * 70)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body_too_large"' in answer


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff" * 100 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /recommend HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ],
)
def test_invalid_http_is_400(settings: Callable[..., Settings], data: bytes) -> None:
    with served_in_a_thread(settings(port=0)) as server:
        assert exchange(port_of(server), data).startswith(b"HTTP/1.1 400 ")
        assert httpx.get(f"http://127.0.0.1:{port_of(server)}/livez").status_code == 200

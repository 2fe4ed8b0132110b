"""Several workers: one address, one Redis, one set of metrics, and restarts."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from service.serving.workers import _metrics_folder, _reserved_port, supervise
from service.settings import Settings, SetupError
from service.settings_sources import METRICS_FOLDER
from tests.service.serving.test_server import kill_all, running

_PATIENCE_S = 30
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Publish = Callable[..., Path]


def value(metrics: str, name: str) -> float:
    [line] = [line for line in metrics.splitlines() if line.startswith(name + " ")]
    return float(line.split()[-1])


def recommend_status(url: str) -> int:
    """Of a request on a connection of its own, which any of the workers may get."""
    body = {"user_id": "anna", "sequence": ["item-1"]}
    return httpx.post(f"{url}/recommend", json=body, timeout=60).status_code


def metrics_after(url: str, answers: int) -> str:
    """The metrics once all workers have added up so many answers, as they do each second."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        metrics = httpx.get(f"{url}/metrics").text
        answered = 're4_requests_total{route="/recommend",status="200"}'
        count = value(metrics, answered) if answered in metrics else 0.0
        if count == answers or time.monotonic() > until:
            assert count == answers
            return metrics
        time.sleep(0.1)


def test_the_workers_are_one_service(root: Path, short_path: Path, publish: Publish) -> None:
    """Start, kill one and wait for its replacement, drain: only the killed one's requests fail."""
    publish()
    with running(root, short_path, "--workers", "2", "--drain-s", "3600") as process:
        while len(process.listening) < 2 or len(process.loaded) < 2:
            process.wait_for("listening", "release loaded")
        before = process.listening
        assert {recommend_status(process.url) for _ in range(20)} == {200}
        metrics = metrics_after(process.url, 20)
        check_process_metrics(metrics, [process.pid, *before])
        cpu_s = value(metrics, "process_cpu_seconds_total")
        assert value(metrics, "re4_redis_up") == 1
        assert value(metrics, 're4_release_info{release="first"}') == 1
        assert len(redis_servers(process.pid)) == 1

        psutil.Process(min(before)).kill()
        assert process.wait_for("worker ended")["status"] == -signal.SIGKILL
        assert {recommend_status(process.url) for _ in range(5)} == {200}, (
            "the other worker goes on"
        )
        process.wait_for("listening")
        assert len(process.listening - before) == 1, "one worker was started"
        assert {recommend_status(process.url) for _ in range(5)} == {200}
        metrics = metrics_after(process.url, 30)
        assert value(metrics, "re4_queue_requests") == 0
        assert value(metrics, "process_cpu_seconds_total") > cpu_s, "the killed worker's counts"
        assert len(redis_servers(process.pid)) == 1

        process.send(signal.SIGTERM)
        process.wait_for("draining")
        assert recommend_status(process.url) == 200
        process.wait_for("draining")
        process.send(signal.SIGTERM)
        assert process.end() == 0
    assert not [pid for pid in process.listening if psutil.pid_exists(pid)]


def test_the_workers_drain_when_their_terminal_is_closed(
    root: Path, short_path: Path, publish: Publish
) -> None:
    """The whole process group gets SIGHUP then, and some shells send it twice."""
    publish()
    with running(root, short_path, "--workers", "2", "--drain-s", "3600") as process:
        while len(process.listening) < 2 or len(process.loaded) < 2:
            process.wait_for("listening", "release loaded")
        for pid in [process.pid, *process.listening, process.pid]:
            os.kill(pid, signal.SIGHUP)
        process.wait_for("draining")
        process.wait_for("draining")
        assert recommend_status(process.url) == 200
        process.send(signal.SIGTERM)
        assert process.end() == 0


def check_process_metrics(metrics: str, pids: list[int]) -> None:
    """They are of the whole service, as with one worker they are of its one process."""
    processes = [psutil.Process(pid) for pid in pids]
    resident = sum(process.memory_info().rss for process in processes)
    assert value(metrics, "process_resident_memory_bytes") == pytest.approx(resident, rel=0.2)
    assert value(metrics, "process_start_time_seconds") == pytest.approx(
        processes[0].create_time(), abs=2
    )
    assert value(metrics, "process_cpu_seconds_total") > 1
    assert 0 < value(metrics, "process_open_fds") < value(metrics, "process_max_fds")
    assert value(metrics, "process_virtual_memory_bytes") > resident
    assert value(metrics, 'python_gc_collections_total{generation="0"}') > 0


def note_redis(settings: Settings, _: bool) -> None:
    """In place of a server: writes down which Redis the worker would use, and ends."""
    url = settings.redis_url.get_secret_value() if settings.redis_url else "none"
    (settings.releases / "redis").write_text(f"{url} {settings.redis_password}")
    raise SetupError("seen enough")


@pytest.fixture
def _signals() -> Iterator[None]:
    """The handlers of the test process, which a supervisor replaces."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals")
def test_workers_use_the_redis_of_the_supervisor(
    root: Path, short_path: Path, publish: Publish, settings: Callable[..., Settings]
) -> None:
    """By its URL: one that had the folder alone would start a server of its own."""
    publish()
    given = settings(workers=1, port=0, redis_password="of no embedded Redis")
    with pytest.raises(SetupError, match="one cannot start"):
        supervise(given, note_redis)
    assert (root / "redis").read_text() == f"unix://{short_path.resolve()}/redis.sock None"


def test_a_named_metrics_folder_is_emptied_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the gauges of workers that died are in the metrics for ever."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    monkeypatch.setenv(METRICS_FOLDER, str(folder))
    for name in ("gauge_livesum_7.db", "gauge_livemax_8.db", "counter_7.db", "histogram_7.db"):
        (folder / name).write_bytes(b"left over")
    (folder / "notes.txt").write_text("not ours")
    with _metrics_folder():
        assert {path.name for path in folder.iterdir()} == {"lock", "notes.txt"}
        with pytest.raises(SetupError, match="another service uses it"), _metrics_folder():
            pass
    monkeypatch.setenv(METRICS_FOLDER, str(tmp_path / "new"))
    with _metrics_folder():
        assert (tmp_path / "new").is_dir()


def redis_servers(pid: int) -> list[psutil.Process]:
    below = psutil.Process(pid).children(recursive=True)
    return [process for process in below if "redis-server" in process.name()]


def test_an_address_in_use_is_refused_in_one_sentence(
    root: Path, short_path: Path, publish: Publish
) -> None:
    publish()
    arguments = [
        "--releases",
        str(root),
        "--embedded-redis-folder",
        str(short_path),
        "--workers",
        "2",
    ]
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = str(occupied.getsockname()[1])
        completed = subprocess.run(
            [sys.executable, "-m", "service", "--port", port, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
    assert completed.returncode == 1
    assert f"--host 127.0.0.1 --port {port}: cannot be used" in completed.stderr
    assert "Traceback" not in completed.stderr


@contextmanager
def second_service(root: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another installation, with a Redis of its own."""
    with tempfile.TemporaryDirectory(prefix="re4-") as history:
        options = ["--releases", str(root), "--embedded-redis-folder", history, *arguments]
        process = subprocess.Popen(
            [sys.executable, "-m", "service", *options], stderr=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            kill_all(process)
            process.communicate()


@pytest.mark.parametrize(("first", "second"), [("2", "2"), ("1", "2"), ("2", "1")])
def test_a_port_that_another_service_uses_is_refused(
    root: Path, short_path: Path, publish: Publish, first: str, second: str
) -> None:
    """Two services on one port would answer in turn, each from its own releases."""
    publish()
    with running(root, short_path, "--workers", first) as process:
        port = process.url.rpartition(":")[2]
        with second_service(root, "--port", port, "--workers", second) as other:
            _, log = other.communicate(timeout=180)
        assert other.returncode == 1
        assert f"--port {port}: cannot be used" in log
        assert "Traceback" not in log
        assert httpx.get(f"{process.url}/livez", timeout=60).status_code == 200


def test_of_two_services_that_start_together_one_is_refused() -> None:
    """Also before the first of them listens."""
    with _reserved_port("127.0.0.1", 0) as port:
        for host in ("127.0.0.1", "0.0.0.0"):
            with pytest.raises(SetupError, match="cannot be used"), _reserved_port(host, port):
                pass
        workers = [socket.create_server(("127.0.0.1", port), reuse_port=True) for _ in range(2)]
        for worker in workers:
            worker.close()
    with _reserved_port("127.0.0.1", port) as again:
        assert again == port

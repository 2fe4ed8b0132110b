"""A real server process: to start it, to wait until it is ready, and to weigh it."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
MIB = 1 << 20
PATIENCE_S = 60.0
T = TypeVar("T")


@dataclass(frozen=True)
class Weight:
    """What the process holds."""

    resident_mib: float
    descriptors: int
    threads: int


class Server:
    """`python -m service` with a history of its own."""

    def __init__(self, root: Path, history: Path, settings: dict[str, object]) -> None:
        # Patient: nothing is to fail because the machine does other things besides.
        given = {
            "deadline_ms": 60_000, "redis_timeout_ms": 10_000,
            "releases": root, "embedded_redis_folder": history, "port": 0, "drain_s": 0,
            "reload_interval_s": 0.005, **settings,
        }  # fmt: skip
        variables = {f"RE4_{name.upper()}": str(value) for name, value in given.items()}
        kept = {name: v for name, v in os.environ.items() if not name.startswith("RE4_")}
        self._log = (history / "log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            env={**kept, **variables},
            cwd=REPOSITORY,
            stderr=self._log,
        )
        self._measured = psutil.Process(self._process.pid)
        self.url = f"http://127.0.0.1:{self._port()}"

    def _port(self) -> int:
        return int(self.wait(lambda: self.told("listening"))[0]["port"])

    @property
    def log(self) -> list[dict[str, object]]:
        """What it logged so far."""
        lines = self.said.splitlines(keepends=True)
        return [json.loads(line) for line in lines if line[0] == "{" and line[-1] == "\n"]

    def told(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log that tell of such an event."""
        return [line for line in self.log if line["event"] == event]

    def wait_for(self, event: str, count: int) -> None:
        """Until so many lines tell of it, such as one of each worker."""
        self.wait(lambda: len(self.told(event)) == count)

    @property
    def said(self) -> str:
        return Path(self._log.name).read_text()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        with httpx.Client(base_url=self.url, timeout=PATIENCE_S) as client:
            self.wait(lambda: client.get("/readyz").status_code == 200)

    def wait(self, until: Callable[[], T | None]) -> T:
        """What `until` gives, once it gives something; the process must live to see it."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and self.is_alive:
            if found := until():
                return found
            time.sleep(0.001)
        raise SystemExit(f"the server {'took too long' if self.is_alive else 'ended'}: {self.said}")

    def weigh(self) -> Weight:
        with self._measured.oneshot():
            return Weight(
                resident_mib=self._measured.memory_info().rss / MIB,
                descriptors=self._measured.num_fds(),
                threads=self._measured.num_threads(),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def peak_mib(self) -> float:
        """The most that was ever resident."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        [peak] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(peak.split()[1]) / 1024

    def end(self) -> int:
        self._process.terminate()
        status = self._process.wait(60)
        self._log.close()
        return status


@contextmanager
def serving(root: Path, **settings: object) -> Iterator[Server]:
    """A server that is ready; it is ended afterwards. settings: of the service, by name."""
    with tempfile.TemporaryDirectory(prefix="re4-") as history:
        server = Server(root, Path(history), settings)
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.end()

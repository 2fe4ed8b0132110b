"""Rolling restarts of three replicas behind a real load balancer, under load: nothing is lost.

    python tests/evidence/rolling.py [--restarts N] [--rate R]

Each replica in turn is sent SIGTERM, waited for, started again and waited for until the balancer
takes it back; meanwhile requests of a user and a sequence, and events, come at a steady rate
through HAProxy (Debian: apt-get install haproxy), which tries none of them twice. The last line is
one JSON object.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
from releases import point, write_release

FOLDER = Path(__file__).resolve().parent
REPLICAS = ("ONE", "TWO", "THREE")
DRAIN_S = 2.0
PATIENCE_S = 120.0


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


class Replica:
    """A server that can be ended and started again, on the same port."""

    def __init__(self, root: Path, history: Path, port: int) -> None:
        self._given = {
            "releases": root, "embedded_redis_folder": history, "port": port, "drain_s": DRAIN_S,
            "deadline_ms": 60_000, "redis_timeout_ms": 10_000, "log_level": "error",
        }  # fmt: skip
        self.url = f"http://127.0.0.1:{port}"
        self.start()

    def start(self) -> None:
        variables = {f"RE4_{name.upper()}": str(value) for name, value in self._given.items()}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            env={**os.environ, **variables},
            cwd=FOLDER.parents[1],
        )

    def end(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE_S)


@contextmanager
def balancing(ports: dict[str, int]) -> Iterator[str]:
    """The address of a HAProxy before the replicas."""
    [port] = free_ports(1)
    variables = {f"PORT_{name}": str(number) for name, number in ports.items()}
    process = subprocess.Popen(
        ["haproxy", "-q", "-db", "-f", str(FOLDER / "haproxy.cfg")],
        env={**os.environ, **variables, "PORT": str(port)},
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def wait_until_ready(url: str, times: int = 1) -> None:
    end = time.monotonic() + PATIENCE_S
    while times:
        with suppress(httpx.TransportError):
            times -= httpx.get(f"{url}/readyz").status_code == 200
        if time.monotonic() > end:
            raise SystemExit(f"{url}: not ready after {PATIENCE_S:g} s")
        time.sleep(0.05)


def outcome(response: httpx.Response) -> str:
    """Its status, and for a failure who says what."""
    if response.status_code == 200:
        return "200"
    ours = response.headers.get("content-type") == "application/json"
    said = response.json()["error"]["code"] if ours else "of the balancer"
    return f"{response.status_code} {said}"


class Load:
    """Requests at a steady rate, and what became of each."""

    def __init__(self, url: str, rate: float) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=30)
        self._rate = rate
        self._tasks: set[asyncio.Task[None]] = set()
        self.outcomes: Counter[str] = Counter()

    async def run(self, ended: asyncio.Event) -> None:
        number, due = 0, time.monotonic()
        while not ended.is_set():
            task = asyncio.create_task(self._one(number))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            number, due = number + 1, due + 1 / self._rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*self._tasks)
        await self._client.aclose()

    async def _one(self, number: int) -> None:
        user = f"user-{number % 50}"
        path, body = "/recommend", {"user_id": user, "sequence": ["item-1"]}
        if number % 10 == 9:
            path, body = "/events", {"user_id": user, "item_id": "item-2"}
        try:
            response = await self._client.post(path, json=body)
            self.outcomes[outcome(response)] += 1
        except httpx.HTTPError as error:
            self.outcomes[type(error).__name__] += 1


async def roll(replicas: list[Replica], restarts: int, url: str, rate: float) -> Load:
    load, ended = Load(url, rate), asyncio.Event()
    running = asyncio.create_task(load.run(ended))
    for turn in range(restarts):
        for replica in replicas:
            status = await asyncio.to_thread(replica.end)
            if status:
                load.outcomes[f"exit {status}"] += 1
            replica.start()
            await asyncio.to_thread(wait_until_ready, replica.url)
            await asyncio.sleep(1.0)  # in which the balancer looks twice, and takes it back
        print(f"restart {turn + 1}: {dict(load.outcomes)}", file=sys.stderr)
    ended.set()
    await running
    return load


def measure(root: Path, restarts: int, rate: float) -> dict[str, object]:
    write_release(root, "one")
    point(root, "one")
    ports = dict(zip(REPLICAS, free_ports(len(REPLICAS)), strict=True))
    start = time.monotonic()
    with ExitStack() as stack:
        replicas = []
        for name, port in ports.items():
            history = root / name
            history.mkdir()
            replicas.append(Replica(root, history, port))
            stack.callback(replicas[-1].end)
        for replica in replicas:
            wait_until_ready(replica.url)
        with balancing(ports) as url:
            wait_until_ready(url, times=len(replicas))
            load = asyncio.run(roll(replicas, restarts, url, rate))
    failed = load.outcomes.total() - load.outcomes["200"]
    return {
        "evidence": "rolling",
        "passed": failed == 0 and load.outcomes["200"] > 0,
        "rolling_restarts": restarts,
        "replicas": len(replicas),
        "requests": load.outcomes.total(),
        "failed": failed,
        "outcomes": dict(load.outcomes),
        "seconds": round(time.monotonic() - start),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=10, help="of all three, one by one")
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    given = parser.parse_args()
    if shutil.which("haproxy") is None:
        why = "no haproxy on the PATH; install it (Debian: apt-get install haproxy)"
        print(json.dumps({"evidence": "rolling", "skipped": why}))
        return
    with tempfile.TemporaryDirectory(prefix="re4-rolling-") as root:
        result = measure(Path(root), given.restarts, given.rate)
    print(json.dumps(result))
    raise SystemExit(not result["passed"])


if __name__ == "__main__":
    main()

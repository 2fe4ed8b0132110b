"""Faults of Redis, and of the network before it, while the service answers over HTTP.

    python tests/evidence/redis_faults.py [--seconds S] [--rate R] [--pause-s S] [--deadline-ms MS]
        [--kinds KINDS] [--slack-ms MS]

A real service process with its default timeout of 50 ms reaches its Redis through a proxy that
distorts the traffic (fault_proxy.py), behind Sentinels, or in a Cluster; all are real servers.
Requests are sent at a constant rate. Before each fault they are measured without it, through the
same proxy. Then the fault lasts for twice as long; if the circuit is open after half of it, the
rest is measured separately. Then the fault ends, and the service must recover by itself.

The last line is one JSON object. The status is 1 if POST /recommend was answered with 5xx, POST
/events with anything but 200 or 503, if the service did not recover, or if responses were late: in
the p99 of any fault by more than the timeout, or in the p99 of all that were sent while the circuit
was open by more than 1 ms. --slack-ms is added to both, for machines that are busy otherwise.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import httpx
import numpy as np
import uvloop
from fault_proxy import FAULTS
from redis_servers import HOST, ClusterServers, RedisServer, SentinelServers, running, wait_until
from releases import point, write_release
from server import serving
from steady_load import Answered, SteadyLoad

TIMEOUT_MS = 50
OPEN_MS = 1
USERS = 200
RECOVERY_TIMEOUT_S = 30.0

Action = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """How a fault begins, how it ends unless by itself, and what prepares it."""

    name: str
    begin: Action
    end: Action | None
    prepare: Action | None = None


@dataclass
class Measurement:
    """The responses during one fault. Times in milliseconds, recovery in seconds."""

    answers: int
    server_errors: Counter[str]
    degraded_share: float
    events: Counter[int]
    p50_before_ms: float
    p99_before_ms: float
    added_p50_ms: float
    added_p99_ms: float
    open_added_p50_ms: float | None
    open_added_p99_ms: float | None
    recovery_s: float | None


@dataclass
class Evidence:
    arguments: argparse.Namespace
    findings: dict[str, Measurement] = field(default_factory=dict)
    normal_ms: list[float] = field(default_factory=list)
    open_ms: list[float] = field(default_factory=list)

    async def collect(self, url: str, faults: Sequence[Fault]) -> None:
        """Measure each fault in turn, with the service at the URL."""
        async with SteadyLoad(url, self.arguments.rate, USERS) as load:
            await load.normal(time.perf_counter(), RECOVERY_TIMEOUT_S)
            for fault in faults:
                self.findings[fault.name] = measurement = await self._measure(url, load, fault)
                print(f"{fault.name:<28}{_summary_line(measurement)}", flush=True)

    async def _measure(self, url: str, load: SteadyLoad, fault: Fault) -> Measurement:
        seconds = self.arguments.seconds
        if fault.prepare is not None:
            await fault.prepare()
            await load.normal(time.perf_counter(), RECOVERY_TIMEOUT_S)
        start = time.perf_counter()
        await load.last(seconds)
        began = time.perf_counter()
        await fault.begin()
        await load.last(seconds)
        circuit_opened = time.perf_counter() if fault.end and await _is_circuit_open(url) else None
        await load.last(seconds if fault.end else 0)
        ended = time.perf_counter()
        if fault.end is not None:
            await fault.end()
        recovery_s = await _recovery(load, ended if fault.end else began)
        before = _between(load.answers, start, began)
        during = _between(load.answers, began, ended)
        while_open = _between(load.answers, circuit_opened, ended) if circuit_opened else []
        if not all(response.degraded for response in while_open if response.path == "/recommend"):
            while_open = []  # it has not stayed open: some replies are in time
        self.normal_ms += _times_ms(before)
        self.open_ms += _times_ms(while_open)
        return _findings(before, during, while_open, recovery_s, load.answers)

    def summary(self) -> dict[str, object]:
        slack_ms = self.arguments.slack_ms
        worst_ms = max(measurement.added_p99_ms for measurement in self.findings.values())
        added = _added_ms(self.normal_ms, self.open_ms)
        wrong = [
            name
            for name, measurement in self.findings.items()
            if measurement.server_errors
            or set(measurement.events) - {200, 503}
            or measurement.recovery_s is None
        ]
        on_time = worst_ms <= TIMEOUT_MS + slack_ms and added[1] <= OPEN_MS + slack_ms
        return {
            "evidence": "redis-faults",
            "date": date.today().isoformat(),
            "faults": len(self.findings),
            "answers": sum(measurement.answers for measurement in self.findings.values()),
            "server_errors": sum(
                measurement.server_errors.total() for measurement in self.findings.values()
            ),
            "worst_added_p99_ms": round(worst_ms, 2),
            "open_answers": len(self.open_ms),
            "open_added_p50_ms": round(added[0], 2),
            "open_added_p99_ms": round(added[1], 2),
            "worst_recovery_s": _rounded(
                max(measurement.recovery_s or 0.0 for measurement in self.findings.values())
            ),
            "wrong": wrong,
            "passed": not wrong and on_time,
            "findings": {
                name: {key: _rounded(value) for key, value in vars(measurement).items()}
                for name, measurement in self.findings.items()
            },
        }


async def _is_circuit_open(url: str) -> bool:
    """Whether the service's circuit breaker is open."""
    async with httpx.AsyncClient(base_url=url) as client:
        return "re4_redis_circuit_open 1.0" in (await client.get("/metrics")).text


async def _recovery(load: SteadyLoad, since: float) -> float | None:
    try:
        return await load.normal(since, RECOVERY_TIMEOUT_S)
    except TimeoutError:
        return None


def _between(answers: Sequence[Answered], start: float, end: float) -> list[Answered]:
    return [response for response in answers if start <= response.sent < end]


def _times_ms(answers: Sequence[Answered]) -> list[float]:
    return [response.took * 1e3 for response in answers if response.path == "/recommend"]


def _added_ms(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """By how much the median and the p99 grow."""
    if not before or not after:
        return 0.0, 0.0
    median, p99 = np.percentile(after, (50, 99)) - np.percentile(before, (50, 99))
    return float(median), float(p99)


def _findings(
    before: Sequence[Answered],
    during: Sequence[Answered],
    while_open: Sequence[Answered],
    recovery_s: float | None,
    all_responses: Sequence[Answered],
) -> Measurement:
    responses = [response for response in during if response.path == "/recommend"]
    p50, p99 = np.percentile(_times_ms(before), (50, 99))
    added = _added_ms(_times_ms(before), _times_ms(during))
    added_open = _added_ms(_times_ms(before), _times_ms(while_open)) if while_open else (None, None)
    since = before[0].sent
    return Measurement(
        answers=len(responses),
        server_errors=Counter(
            response.code
            for response in all_responses
            if response.sent >= since and response.path == "/recommend" and response.status >= 500
        ),
        degraded_share=sum(response.degraded for response in responses) / max(1, len(responses)),
        events=Counter(response.status for response in during if response.path == "/events"),
        p50_before_ms=float(p50),
        p99_before_ms=float(p99),
        added_p50_ms=added[0],
        added_p99_ms=added[1],
        open_added_p50_ms=added_open[0],
        open_added_p99_ms=added_open[1],
        recovery_s=recovery_s,
    )


def _summary_line(m: Measurement) -> str:
    while_open = (
        ""
        if m.open_added_p99_ms is None
        else (f" (open: {m.open_added_p50_ms:+.2f} and {m.open_added_p99_ms:+.2f} ms)")
    )
    recovery = "never" if m.recovery_s is None else f"{m.recovery_s:.2f} s"
    return (
        f"{m.answers} answers, 5xx: {dict(m.server_errors) or 'none'}, "
        f"{m.degraded_share:.0%} degraded; "
        f"p50 {m.added_p50_ms:+.2f} ms, p99 {m.added_p99_ms:+.2f} ms{while_open}; "
        f"normal after {recovery}"
    )


def _rounded(value: object) -> object:
    return round(value, 2) if isinstance(value, float) else value


# --- the faults ---


@contextmanager
def proxied(target: int) -> Iterator[tuple[int, Callable[[str], Action]]]:
    """The port of a proxy to the target port, and a function that makes the action of a fault."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fault_proxy.py")), str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    output, commands = process.stdout, process.stdin

    def set_fault(fault: str) -> Action:
        async def send() -> None:
            print(fault, file=commands, flush=True)
            assert (await asyncio.to_thread(output.readline)).strip() == fault

        return send

    try:
        yield int(output.readline()), set_fault
    finally:
        commands.close()
        process.wait()
        output.close()


def send_signal(server: RedisServer, number: int) -> Action:
    async def send() -> None:
        server.send(number)

    return send


def restart(server: RedisServer) -> Action:
    async def start() -> None:
        server.stop()
        await asyncio.to_thread(server.start)

    return start


@asynccontextmanager
async def standalone(folder: Path) -> AsyncIterator[tuple[str, list[Fault]]]:
    """One server, behind the proxy."""
    server = RedisServer(folder)
    with running(server), proxied(server.port) as (port, set_fault):
        faults = [Fault(name, set_fault(name), set_fault("none")) for name in FAULTS]
        faults += [
            Fault(
                "SIGSTOP", send_signal(server, signal.SIGSTOP), send_signal(server, signal.SIGCONT)
            ),
            Fault("SIGKILL", send_signal(server, signal.SIGKILL), restart(server)),
        ]
        yield f"redis://{HOST}:{port}", faults


@asynccontextmanager
async def sentinel(folder: Path) -> AsyncIterator[tuple[str, list[Fault]]]:
    """Behind Sentinels: the master is killed, then its successor hangs."""
    servers = SentinelServers(folder)
    with servers.running():

        async def restore() -> None:
            await restart(servers.master)()
            await asyncio.to_thread(wait_until, servers.is_healthy)

        yield (
            servers.url,
            [
                Fault("Sentinel, SIGKILL", send_signal(servers.master, signal.SIGKILL), None),
                Fault(
                    "Sentinel, SIGSTOP", send_signal(servers.replica, signal.SIGSTOP), None, restore
                ),
            ],
        )


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[str, list[Fault]]]:
    """A Cluster of which a master is killed, then its successor hangs."""
    servers = ClusterServers(folder, replica=True)
    first, replica = servers.nodes[0], servers.nodes[-1]
    with servers.running():

        async def restore() -> None:
            await restart(first)()
            await asyncio.to_thread(wait_until, servers.is_healthy)

        yield (
            servers.url,
            [
                Fault("Cluster, SIGKILL", send_signal(first, signal.SIGKILL), None),
                Fault("Cluster, SIGSTOP", send_signal(replica, signal.SIGSTOP), None, restore),
            ],
        )


SERVER_KINDS = {"standalone": standalone, "sentinel": sentinel, "cluster": cluster}


async def collect(arguments: argparse.Namespace) -> Evidence:
    evidence = Evidence(arguments)
    with ExitStack() as stack:
        root, folder = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="re4-"))) for _ in range(2)
        )
        write_release(root, "release")
        point(root, "release")
        for name in arguments.kinds.split(","):
            async with SERVER_KINDS[name](folder / name) as (url, faults):
                service = serving(
                    root,
                    redis_url=url,
                    redis_timeout_ms=TIMEOUT_MS,
                    breaker_cooldown_s=arguments.pause_s,
                    deadline_ms=arguments.deadline_ms,
                    reload_interval_s=60,
                )
                with service as server:
                    await evidence.collect(server.url, faults)
    return evidence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--pause-s", type=float, default=1.0, help="of the breaker")
    parser.add_argument("--deadline-ms", type=int, default=250, help="of a request")
    parser.add_argument("--kinds", default=",".join(SERVER_KINDS), help="of servers, with commas")
    parser.add_argument("--slack-ms", type=float, default=0.0)
    summary = uvloop.run(collect(parser.parse_args())).summary()
    print(json.dumps(summary))
    raise SystemExit(not summary["passed"])


if __name__ == "__main__":
    main()

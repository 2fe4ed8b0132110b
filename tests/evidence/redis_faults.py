"""Redis on its bad days: faults between it and the service, and to it, under requests over HTTP.

    python tests/evidence/redis_faults.py [--seconds S] [--rate R] [--pause-s S] [--deadline-ms MS]
        [--kinds ERROR_SPECS] [--slack-ms MS]

A real service process with its default budget of 50 ms finds its Redis through a proxy that spoils
the traffic (fault_proxy.py), behind Sentinels, or in a Cluster; all are real servers. Requests come
at a steady rate. Before each fault they are measured without it, through the same proxy. Then the
fault comes, for twice as long; if the breaker is open from half of it, the rest is measured apart.
Then it goes, and the service must be as before, by itself.

The last line is one JSON object. The status is 1 if POST /recommend was answered with 5xx, POST
/events with anything but 200 or 503, if the service did not recover, or if answers were late: in
the p99 of any fault by more than the budget, or in the p99 of all that were sent while the breaker
was open by more than 1 ms. --slack-ms is added to both, for machines that do other things too.
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
from redises import HOST, Clustered, RedisServer, Watched, running, until
from releases import point, write_release
from server import serving
from steady_load import Answered, SteadyLoad

BUDGET_MS = 50
OPEN_MS = 1
USERS = 200
PATIENCE_S = 30.0

Order = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Trouble:
    """What brings a fault about; what ends it, if it does not end by itself; what goes before."""

    name: str
    begin: Order
    end: Order | None
    prepare: Order | None = None


@dataclass
class Findings:
    """What came of one fault. Times in milliseconds, but for the seconds of recovery."""

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
    given: argparse.Namespace
    findings: dict[str, Findings] = field(default_factory=dict)
    normal_ms: list[float] = field(default_factory=list)
    open_ms: list[float] = field(default_factory=list)

    async def collect(self, url: str, troubles: Sequence[Trouble]) -> None:
        """Each trouble in turn, for the service at the URL."""
        async with SteadyLoad(url, self.given.rate, USERS) as load:
            await load.normal(time.perf_counter(), PATIENCE_S)
            for trouble in troubles:
                self.findings[trouble.name] = found = await self._meet(url, load, trouble)
                print(f"{trouble.name:<28}{_line(found)}", flush=True)

    async def _meet(self, url: str, load: SteadyLoad, trouble: Trouble) -> Findings:
        seconds = self.given.seconds
        if trouble.prepare is not None:
            await trouble.prepare()
            await load.normal(time.perf_counter(), PATIENCE_S)
        start = time.perf_counter()
        await load.last(seconds)
        begun = time.perf_counter()
        await trouble.begin()
        await load.last(seconds)
        opened = time.perf_counter() if trouble.end and await _is_left_alone(url) else None
        await load.last(seconds if trouble.end else 0)
        ended = time.perf_counter()
        if trouble.end is not None:
            await trouble.end()
        recovery_s = await _recovery(load, ended if trouble.end else begun)
        before = _between(load.answers, start, begun)
        during = _between(load.answers, begun, ended)
        alone = _between(load.answers, opened, ended) if opened else []
        if not all(each.degraded for each in alone if each.path == "/recommend"):
            alone = []  # it has not stayed open: some replies come in time
        self.normal_ms += _times_ms(before)
        self.open_ms += _times_ms(alone)
        return _findings(before, during, alone, recovery_s, load.answers)

    def summary(self) -> dict[str, object]:
        slack_ms = self.given.slack_ms
        worst_ms = max(found.added_p99_ms for found in self.findings.values())
        added = _added_ms(self.normal_ms, self.open_ms)
        wrong = [
            name
            for name, found in self.findings.items()
            if found.server_errors or set(found.events) - {200, 503} or found.recovery_s is None
        ]
        on_time = worst_ms <= BUDGET_MS + slack_ms and added[1] <= OPEN_MS + slack_ms
        return {
            "evidence": "redis-faults",
            "date": date.today().isoformat(),
            "faults": len(self.findings),
            "answers": sum(found.answers for found in self.findings.values()),
            "server_errors": sum(found.server_errors.total() for found in self.findings.values()),
            "worst_added_p99_ms": round(worst_ms, 2),
            "open_answers": len(self.open_ms),
            "open_added_p50_ms": round(added[0], 2),
            "open_added_p99_ms": round(added[1], 2),
            "worst_recovery_s": _rounded(
                max(found.recovery_s or 0.0 for found in self.findings.values())
            ),
            "wrong": wrong,
            "passed": not wrong and on_time,
            "findings": {
                name: {key: _rounded(value) for key, value in vars(found).items()}
                for name, found in self.findings.items()
            },
        }


async def _is_left_alone(url: str) -> bool:
    """Whether the breaker is open."""
    async with httpx.AsyncClient(base_url=url) as client:
        return "re4_history_breaker_open 1.0" in (await client.get("/metrics")).text


async def _recovery(load: SteadyLoad, since: float) -> float | None:
    try:
        return await load.normal(since, PATIENCE_S)
    except TimeoutError:
        return None


def _between(answers: Sequence[Answered], start: float, end: float) -> list[Answered]:
    return [each for each in answers if start <= each.sent < end]


def _times_ms(answers: Sequence[Answered]) -> list[float]:
    return [each.took * 1e3 for each in answers if each.path == "/recommend"]


def _added_ms(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """By how much the median and the p99 are later."""
    if not before or not after:
        return 0.0, 0.0
    median, p99 = np.percentile(after, (50, 99)) - np.percentile(before, (50, 99))
    return float(median), float(p99)


def _findings(
    before: Sequence[Answered],
    during: Sequence[Answered],
    alone: Sequence[Answered],
    recovery_s: float | None,
    every: Sequence[Answered],
) -> Findings:
    asked = [each for each in during if each.path == "/recommend"]
    p50, p99 = np.percentile(_times_ms(before), (50, 99))
    added = _added_ms(_times_ms(before), _times_ms(during))
    added_open = _added_ms(_times_ms(before), _times_ms(alone)) if alone else (None, None)
    since = before[0].sent
    return Findings(
        answers=len(asked),
        server_errors=Counter(
            each.code
            for each in every
            if each.sent >= since and each.path == "/recommend" and each.status >= 500
        ),
        degraded_share=sum(each.degraded for each in asked) / max(1, len(asked)),
        events=Counter(each.status for each in during if each.path == "/events"),
        p50_before_ms=float(p50),
        p99_before_ms=float(p99),
        added_p50_ms=added[0],
        added_p99_ms=added[1],
        open_added_p50_ms=added_open[0],
        open_added_p99_ms=added_open[1],
        recovery_s=recovery_s,
    )


def _line(found: Findings) -> str:
    opened = (
        ""
        if found.open_added_p99_ms is None
        else (f" (open: {found.open_added_p50_ms:+.2f} and {found.open_added_p99_ms:+.2f} ms)")
    )
    recovery = "never" if found.recovery_s is None else f"{found.recovery_s:.2f} s"
    return (
        f"{found.answers} answers, 5xx: {dict(found.server_errors) or 'none'}, "
        f"{found.degraded_share:.0%} degraded; "
        f"p50 {found.added_p50_ms:+.2f} ms, p99 {found.added_p99_ms:+.2f} ms{opened}; "
        f"normal after {recovery}"
    )


def _rounded(value: object) -> object:
    return round(value, 2) if isinstance(value, float) else value


# --- the troubles ---


@contextmanager
def proxied(target: int) -> Iterator[tuple[int, Callable[[str], Order]]]:
    """The port of a proxy before that one, and what makes it hold to a fault."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fault_proxy.py")), str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said, told = process.stdout, process.stdin

    def order(fault: str) -> Order:
        async def hold() -> None:
            print(fault, file=told, flush=True)
            assert (await asyncio.to_thread(said.readline)).strip() == fault

        return hold

    try:
        yield int(said.readline()), order
    finally:
        told.close()
        process.wait()
        said.close()


def signalled(server: RedisServer, number: int) -> Order:
    async def send() -> None:
        server.send(number)

    return send


def started_again(server: RedisServer) -> Order:
    async def start() -> None:
        server.stop()
        await asyncio.to_thread(server.start)

    return start


@asynccontextmanager
async def alone(folder: Path) -> AsyncIterator[tuple[str, list[Trouble]]]:
    """One server, behind the proxy."""
    server = RedisServer(folder)
    with running(server), proxied(server.port) as (port, order):
        troubles = [Trouble(name, order(name), order("none")) for name in FAULTS]
        troubles += [
            Trouble(
                "SIGSTOP", signalled(server, signal.SIGSTOP), signalled(server, signal.SIGCONT)
            ),
            Trouble("SIGKILL", signalled(server, signal.SIGKILL), started_again(server)),
        ]
        yield f"redis://{HOST}:{port}", troubles


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[tuple[str, list[Trouble]]]:
    """Behind Sentinels: the master is killed, then its successor hangs."""
    servers = Watched(folder)
    with servers.running():

        async def heal() -> None:
            await started_again(servers.master)()
            await asyncio.to_thread(until, servers.is_whole)

        yield (
            servers.url,
            [
                Trouble("Sentinel, SIGKILL", signalled(servers.master, signal.SIGKILL), None),
                Trouble(
                    "Sentinel, SIGSTOP", signalled(servers.replica, signal.SIGSTOP), None, heal
                ),
            ],
        )


@asynccontextmanager
async def clustered(folder: Path) -> AsyncIterator[tuple[str, list[Trouble]]]:
    """A Cluster of which a master is killed, then its successor hangs."""
    servers = Clustered(folder, replica=True)
    first, heir = servers.nodes[0], servers.nodes[-1]
    with servers.running():

        async def heal() -> None:
            await started_again(first)()
            await asyncio.to_thread(until, servers.is_whole)

        yield (
            servers.url,
            [
                Trouble("Cluster, SIGKILL", signalled(first, signal.SIGKILL), None),
                Trouble("Cluster, SIGSTOP", signalled(heir, signal.SIGSTOP), None, heal),
            ],
        )


ERROR_SPECS = {"alone": alone, "watched": watched, "clustered": clustered}


async def collect(given: argparse.Namespace) -> Evidence:
    evidence = Evidence(given)
    with ExitStack() as stack:
        root, folder = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="re4-"))) for _ in range(2)
        )
        write_release(root, "release")
        point(root, "release")
        for name in given.kinds.split(","):
            async with ERROR_SPECS[name](folder / name) as (url, troubles):
                service = serving(
                    root,
                    redis_url=url,
                    redis_timeout_ms=BUDGET_MS,
                    breaker_cooldown_s=given.pause_s,
                    deadline_ms=given.deadline_ms,
                    reload_interval_s=60,
                )
                with service as server:
                    await evidence.collect(server.url, troubles)
    return evidence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--pause-s", type=float, default=1.0, help="of the breaker")
    parser.add_argument("--deadline-ms", type=int, default=250, help="of a request")
    parser.add_argument("--kinds", default=",".join(ERROR_SPECS), help="of servers, with commas")
    parser.add_argument("--slack-ms", type=float, default=0.0)
    summary = uvloop.run(collect(parser.parse_args())).summary()
    print(json.dumps(summary))
    raise SystemExit(not summary["passed"])


if __name__ == "__main__":
    main()

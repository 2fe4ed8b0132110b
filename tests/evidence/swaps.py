"""The release swapped again and again, under load: each answer is whole, and of one release.

    python tests/evidence/swaps.py [--swaps 1000] [--share 0.25] [--steady-s 30] [--items 10000]

Three releases take turns, and a server with two workers follows `current`. Requests are due at a
steady rate, a share of what it can answer: histories, and batches of them. The answers that each
release gives to each were computed before, in this process, and every answer must be, item by item,
what the release that it names gives; a batch is of one release; and a connection, which is of one
worker, never goes back to a release before. The next swap waits until all connections have
answered from this one. The load runs on without swaps before and after, and the p99 of both
together is what the p99 of the swaps is held against; that of those answers alone that were under
way while a worker was loading is told besides. The last line is one JSON object; the exit status is
1 if anything failed, or the p99 is twice as long.
"""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from releases import histories, point, write_release
from server import serving
from steady_load import Answered, Connection, SteadyLoad, prepare

from index.release.reading import open_release
from index.retrieval.query import Query

RELEASES = ("one", "two", "three")
WORKERS = 2
CONNECTIONS = 16
DIM, K, HISTORIES, BATCH = 64, 50, 500, 4
SLOWER = 2.0
ENOUGH = 100  # swaps, for a p99 that says something
CAPACITY_S, SETTLING_S, PATIENCE_S = 3.0, 1.0, 60.0
_TOLD_EVERY = 50

Items = list[str]
# From when to when, in seconds of the clock on the wall, by which the server dates its log.
Spans = list[tuple[float, float]]


@dataclass(frozen=True)
class Question:
    """A request, and the histories that it asks about."""

    path: str
    request: bytes
    histories: tuple[int, ...]


def questions(asked: Sequence[Items]) -> Iterator[Question]:
    """Each history once; after every tenth a batch."""
    for number, history in enumerate(asked):
        body: dict[str, object] = {"sequence": history, "k": K}
        yield Question("/recommend", prepare("/recommend", body), (number,))
        if number % 10 == 9:
            batch = tuple(range(number - BATCH + 1, number + 1))
            body = {"requests": [{"sequence": asked[each], "k": K} for each in batch]}
            path = "/recommend/batch"
            yield Question(path, prepare(path, body), batch)


def expected(folder: Path, asked: Sequence[Items]) -> list[Items]:
    """What a release gives to each history."""
    retriever = open_release(folder).retriever
    answers = retriever.recommend([Query(history, K) for history in asked])
    return [[retriever.catalog.id(int(row)) for row in answer.rows] for answer in answers]


@dataclass
class Findings:
    """What was amiss: answers that are no answer, of another release, or of two."""

    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    mixed: int = 0
    backward: int = 0


class Load(SteadyLoad):
    """The questions over and over, each answer looked at. spans: of those of this phase."""

    def __init__(self, url: str, asked: list[Question], known: dict[str, list[Items]]) -> None:
        super().__init__(url, rate=0, users=0)
        self._turn, self._known = itertools.cycle(asked), known
        self.findings = Findings()
        self.spans: Spans = []
        self._swap = 0
        self._flat_out = False
        # By connection: what it is asked, and the last swap that it answered from.
        self._asked: dict[Connection, Question] = {}
        self._at: dict[Connection, int] = {}

    async def __aenter__(self) -> "Load":
        for _ in range(CONNECTIONS):
            self.idle.append(await self.connect())
        return self

    async def capacity(self, seconds: float) -> float:
        """Answers a second, where each connection asks again as soon as it is answered."""
        self._flat_out, before = True, self.findings.answered
        for _ in range(len(self.idle)):
            self.ask(self.idle.popleft())
        await asyncio.sleep(seconds)
        self._flat_out = False
        rate = (self.findings.answered - before) / seconds
        await self.quiet()
        return rate

    def start(self, rate: float) -> None:
        self._rate = rate
        self._sending = asyncio.create_task(self._send())

    def stop(self) -> None:
        self._sending.cancel()

    def ask(self, connection: Connection) -> None:
        self._asked[connection] = question = next(self._turn)
        connection.send(question.path, question.request)

    def note(self, connection: Connection, answered: Answered, body: bytes) -> None:
        now = time.time()
        self.spans.append((now - answered.took, now))
        self.findings.answered += 1
        question = self._asked.pop(connection)
        if answered.status != 200:
            self.findings.failed[f"{answered.status} {answered.code}"] += 1
        else:
            self._look(connection, question, orjson.loads(body))
        self.ask(connection) if self._flat_out else self.idle.append(connection)
        self._news.set()

    def _look(self, connection: Connection, question: Question, told: dict[str, Any]) -> None:
        """Whether all of it is what the release that it names gives, and that is no older one."""
        answers = told.get("answers", [told])
        release = answers[0]["release"]
        known = self._known[release]
        found = [[item["item_id"] for item in answer["items"]] for answer in answers]
        right = found == [known[history] for history in question.histories]
        self.findings.mixed += not right or {answer["release"] for answer in answers} != {release}
        turns = {RELEASES[swap % len(RELEASES)]: swap for swap in (self._swap - 1, self._swap)}
        at = turns.get(release, -1)
        self.findings.backward += at < self._at.get(connection, 0)
        self._at[connection] = at

    async def swap(self, root: Path, number: int) -> None:
        """Point `current` to the next release, and wait until every connection answers from it."""
        self._swap = number
        point(root, RELEASES[number % len(RELEASES)])
        await self._until(lambda: all(at == number for at in self._at.values()))

    async def quiet(self) -> None:
        """Wait for the answers under way; what does not come has failed."""
        with suppress(TimeoutError):
            await self._until(lambda: not self._asked)
        if self._asked:
            self.findings.failed["no answer"] = len(self._asked)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()


async def ask(load: Load, root: Path, given: argparse.Namespace) -> tuple[float, dict[str, Spans]]:
    """The rate, and when answers were under way in each of the phases."""
    phases: dict[str, Spans] = {name: [] for name in ("first", "swaps", "last")}
    async with load:
        rate = given.rate or given.share * await load.capacity(CAPACITY_S)
        load.start(rate)
        await asyncio.sleep(SETTLING_S)
        load.spans = phases["first"]
        await asyncio.sleep(given.steady_s)
        load.spans = phases["swaps"]
        for number in range(1, given.swaps + 1):
            await load.swap(root, number)
            if number % _TOLD_EVERY == 0:
                print(f"{number} swaps: {load.findings}", file=sys.stderr, flush=True)
        load.spans = phases["last"]
        await asyncio.sleep(given.steady_s)
        load.stop()
        await load.quiet()
    return rate, phases


def latencies(phases: dict[str, Spans], loading: Spans) -> dict[str, Any]:
    """How long answers took in each phase, and while any worker was loading."""
    while_loading = during(phases["swaps"], loading)
    steady = percentile_ms(phases["first"] + phases["last"], 99)
    swaps, loads = percentile_ms(phases["swaps"], 99), percentile_ms(while_loading, 99)
    times = {**phases, "while_loading": while_loading}
    return {
        "seconds_of_swaps": round(phases["last"][0][0] - phases["swaps"][0][0], 1),
        "latency": {name: told(spans) for name, spans in times.items()},
        "p99_steady_ms": round(steady, 2),
        "p99_ratio": round(swaps / steady, 2),
        "p99_ratio_while_loading": round(loads / steady, 2),
    }


def during(spans: Spans, others: Spans) -> Spans:
    """Those that overlap one of the others."""
    began, ended = (np.sort(times) for times in zip(*others, strict=True))
    # As many of the others began before it ended as ended before it began: then none overlaps it.
    overlaps = np.searchsorted(began, [e for _, e in spans]) - np.searchsorted(
        ended, [b for b, _ in spans]
    )
    return [span for span, overlap in zip(spans, overlaps, strict=True) if overlap > 0]


def told(spans: Spans) -> dict[str, float]:
    ms = {f"p{p:g}_ms": round(percentile_ms(spans, p), 2) for p in (50, 95, 99, 99.9, 100)}
    return {"answers": len(spans), **ms}


def percentile_ms(spans: Spans, percent: float) -> float:
    return 1e3 * float(np.percentile([end - begin for begin, end in spans], percent))


def span(line: dict[str, Any]) -> tuple[float, float]:
    """From when to when a release was loaded, by the line that tells it."""
    end = datetime.fromisoformat(line["time"]).timestamp()
    return end - line["seconds"], end


def measure(root: Path, given: argparse.Namespace) -> dict[str, Any]:
    asked = histories(np.random.default_rng(7), HISTORIES, given.items)
    known = {}
    for seed, name in enumerate(RELEASES):
        kind = ("flat", "ivf")[seed % 2]
        folder = write_release(root, name, kind, seed, items=given.items, dim=DIM)
        known[name] = expected(folder, asked)
    point(root, RELEASES[0])
    settings = {"deadline_ms": given.deadline_ms, "reload_interval_s": given.interval_s}
    with serving(root, workers=WORKERS, **settings) as server:
        for event in ("listening", "release loaded"):
            server.wait_for(event, WORKERS)
        load = Load(server.url, list(questions(asked)), known)
        rate, phases = asyncio.run(ask(load, root, given))
        loading = [span(line) for line in server.told("release loaded")]
        refused = len(server.told("release refused"))
    findings, found = load.findings, latencies(phases, loading)
    whole = not (findings.failed or findings.mixed or findings.backward or refused)
    judged = given.swaps >= ENOUGH
    return {
        "evidence": "swaps",
        "passed": whole
        and len(loading) == WORKERS * (given.swaps + 1)
        and not (judged and found["p99_ratio"] >= SLOWER),
        "swaps": given.swaps,
        "workers": WORKERS,
        "items": given.items,
        "rate_per_s": round(rate),
        "loaded": len(loading),
        "load_ms_median": round(percentile_ms(loading, 50), 1),
        "answers": findings.answered,
        "failed": findings.failed.total(),
        "failures": dict(findings.failed),
        "mixed": findings.mixed,
        "backward": findings.backward,
        "refused": refused,
        "p99_is_judged": judged,
        **found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--share", type=float, default=0.25, help="of what can be answered")
    parser.add_argument("--rate", type=float, help="requests a second, in place of a share")
    parser.add_argument("--steady-s", type=float, default=30.0, help="before, and again after")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--interval-s", type=float, default=0.7, help="of looks at `current`")
    parser.add_argument("--deadline-ms", type=int, default=250, help="of the server")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="re4-swaps-") as root:
        result = measure(Path(root), given)
    print(json.dumps(result))
    raise SystemExit(not result["passed"])


if __name__ == "__main__":
    main()

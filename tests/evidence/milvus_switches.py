"""The alias in Milvus switched again and again, under load: each answer whole, of one release.

    python tests/evidence/milvus_switches.py [--switches 200] [--items 300] [--rate N]

Three releases, each with its items in a collection, take turns: `rollback --to` switches the alias,
waits for right answers to the canaries, and then names the release in `current`, which a server of
two workers follows. Milvus is `milvus-lite server`, in a process of its own. Requests come at a
steady rate; what is looked at is what swaps.py looks at: every answer must be, item by item, what
the release that it names gives, and a connection never goes back to a release before. After each
switch the alias must name the collection of the release. The last line is one JSON object; the exit
status is 1 if anything failed, or was mixed.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from releases import histories, point, write_release
from server import serving
from swaps import RELEASES, SETTLING_S, Items, Load, Question, expected, questions, told

from index.ann.milvus_engine import ALIAS, MilvusEngine
from index.release.build import build
from index.release.collections import collection_of
from index.release.manifest import read_manifest
from index.release.publish import rollback

WORKERS, CONNECTIONS, DIM, HISTORIES = 2, 4, 16, 60
_TOLD_EVERY = 20


@contextmanager
def milvus_server(folder: Path) -> Iterator[str]:
    """The URI of a milvus-lite behind a port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["milvus-lite", "server", "--data-dir", str(folder), "--host", "127.0.0.1"]
    program = [str(Path(sys.executable).with_name(command[0])), *command[1:], "--port", str(port)]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


class SwitchedLoad(Load):
    """A load whose swaps are rollbacks of the root, with the engine's alias."""

    def __init__(
        self, url: str, asked: list[Question], known: dict[str, list[Items]], engine: MilvusEngine
    ) -> None:
        super().__init__(url, asked, known)
        self._engine = engine
        self.switched_s: list[float] = []
        self.alias_wrong = 0

    async def __aenter__(self) -> "SwitchedLoad":
        for _ in range(CONNECTIONS):
            self.idle.append(await self.connect())
        return self

    async def swap(self, root: Path, number: int) -> None:
        self._swap, name, start = number, RELEASES[number % len(RELEASES)], time.perf_counter()
        await asyncio.to_thread(rollback, root, name, self._engine)
        self.switched_s.append(time.perf_counter() - start)
        spec = collection_of(read_manifest(root / "releases" / name))
        held = await asyncio.to_thread(self._engine.target, ALIAS)
        self.alias_wrong += spec is None or held != spec.collection
        await self._until(lambda: all(at == number for at in self._at.values()))


async def ask(load: SwitchedLoad, root: Path, given: argparse.Namespace) -> float:
    async with load:
        load.start(given.rate)
        await asyncio.sleep(SETTLING_S)
        for number in range(1, given.switches + 1):
            await load.swap(root, number)
            if number % _TOLD_EVERY == 0:
                print(f"{number} switches: {load.findings}", file=sys.stderr, flush=True)
        load.stop()
        await load.quiet()
    return given.rate


def measure(root: Path, engine: MilvusEngine, uri: str, given: argparse.Namespace) -> Any:
    asked = histories(np.random.default_rng(7), HISTORIES, given.items)
    known = {}
    for seed, name in enumerate(RELEASES):
        folder = write_release(root, name, "flat", seed, items=given.items, dim=DIM)
        known[name] = expected(folder, asked)
        build(folder, 1.0, 20, engine=engine, index_type="FLAT")
    point(root, RELEASES[0])
    settings: dict[str, object] = {
        "engine": "milvus",
        "engine_uri": uri,
        "engine_timeout_ms": 30_000,
        "reload_interval_s": 0.1,
    }
    with serving(root, workers=WORKERS, **settings) as server:
        server.wait_for("release loaded", WORKERS)
        load = SwitchedLoad(server.url, list(questions(asked)), known, engine)
        start = time.perf_counter()
        asyncio.run(ask(load, root, given))
        took, refused = time.perf_counter() - start, len(server.told("release refused"))
    findings = load.findings
    whole = not (findings.failed or findings.mixed or findings.backward or load.alias_wrong)
    return {
        "evidence": "milvus_switches",
        "passed": whole and not refused and len(load.switched_s) == given.switches,
        "switches": len(load.switched_s),
        "seconds": round(took, 1),
        "workers": WORKERS,
        "items": given.items,
        "rate_per_s": given.rate,
        "answers": findings.answered,
        "failed": findings.failed.total(),
        "failures": dict(findings.failed),
        "mixed": findings.mixed,
        "backward": findings.backward,
        "alias_wrong": load.alias_wrong,
        "refused": refused,
        "switch_ms_median": round(1e3 * float(np.median(load.switched_s))),
        "latency": told(load.spans),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--switches", type=int, default=200)
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--rate", type=float, default=4.0, help="requests a second")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="re4-switches-") as folder:
        (root := Path(folder) / "root").mkdir()
        with milvus_server(Path(folder) / "milvus") as uri:
            engine = connected(uri)
            result = measure(root, engine, uri, given)
            engine.close()
    print(json.dumps(result))
    raise SystemExit(not result["passed"])


def connected(uri: str, patience_s: float = 60.0) -> MilvusEngine:
    """An engine of a Milvus that is just starting."""
    end = time.monotonic() + patience_s
    while True:
        engine = MilvusEngine(uri)
        try:
            engine.target(ALIAS)
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
        else:
            return engine


if __name__ == "__main__":
    main()

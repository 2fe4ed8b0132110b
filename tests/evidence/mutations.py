"""Mutated releases offered to a running server: it serves none of them and keeps running.

    python tests/evidence/mutations.py [--count N] [--seed S]

Each trial is a release with one damaged file that `current` names, or an intact release and a
damaged `current`. Half of the trials are forged: the manifest's hashes are updated to the damage,
so that the readers behind the hash check meet it. The server must state in GET /release why it
refused the release, and continue to answer with the release it has.

A forged release may be served if it is consistent: its answers are those of an exact search over
its own vectors with its own weights. Their overlap with the answers before the damage is reported.
The last line is one JSON object; the exit code is 1 if anything is wrong.
"""

import argparse
import hashlib
import json
import re
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from damage import DAMAGES
from releases import SPECS, histories, point, write_release
from server import PATIENCE_S, Server, serving

from index.release.manifest import (
    CATALOG,
    CURRENT,
    ENCODER,
    INDEX,
    INTERESTS,
    MANIFEST,
    RELEASES,
    VECTORS,
    digest,
    read_manifest,
    write_manifest,
)
from index.release.reading import open_release
from index.retrieval.retriever import Retriever

PLAIN = (CURRENT, MANIFEST, ENCODER, VECTORS, INTERESTS, CATALOG, INDEX)
FORGED = (MANIFEST, ENCODER, VECTORS, CATALOG, INDEX)
GOOD = "good"
K = 20
GROWTH_MIB = 200.0  # of the server's peak: more means that it trusted a damaged length


@dataclass(frozen=True)
class Mutant:
    """A trial: the content of `current`, the release's folder, and the damage to a file."""

    id: str
    kind: str
    file: str
    damage: str
    forged: bool
    current: bytes

    @property
    def category(self) -> str:
        return f"{'forged' if self.forged else 'plain'} {self.file}"


@dataclass
class Report:
    refused: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    least_overlap: dict[str, float] = field(default_factory=dict)


class Bench:
    """Intact releases of each kind, and their mutants."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self._generator = np.random.default_rng(seed)
        self._pristine = {
            kind: write_release(root / "pristine", kind, kind, seed=2) for kind in SPECS
        }
        self.probes = histories(np.random.default_rng(99), 20)
        self._expected = {
            kind: exact(open_release(folder).retriever, self.probes)[0]
            for kind, folder in self._pristine.items()
        }

    def make(self, number: int, forged: bool) -> Mutant:
        """The next mutant, in its folder. Damage that changes no content is drawn again."""
        kind = list(SPECS)[int(self._generator.integers(len(SPECS)))]
        names = FORGED if forged else PLAIN
        name = names[int(self._generator.integers(len(names)))]
        release_id = f"mutant-{number}"
        folder = self.root / RELEASES / release_id
        shutil.copytree(self._pristine[kind], folder)
        write_manifest(folder, read_manifest(folder).model_copy(update={"id": release_id}))
        current = f"{release_id}\n".encode()
        path = folder / name
        content = current if name == CURRENT else path.read_bytes()
        how, damaged = self._damage(name, content)
        if name == CURRENT:
            current = damaged
        elif forged and name == MANIFEST:
            self._forge_manifest(folder, release_id)
        else:
            path.write_bytes(damaged)
            if forged:
                update_digest(folder, name)
        return Mutant(release_id, kind, name, how, forged, current)

    def _damage(self, name: str, content: bytes) -> tuple[str, bytes]:
        while True:
            how = list(DAMAGES)[int(self._generator.integers(len(DAMAGES)))]
            damaged = DAMAGES[how](self._generator, content)
            if content_of(name, damaged) != content_of(name, content):
                return how, damaged

    def _forge_manifest(self, folder: Path, release_id: str) -> None:
        """Write damage that is still JSON, with the hash of the damaged document."""
        sealed = json.loads((folder / MANIFEST).read_bytes())
        del sealed["sha256"]
        written = json.dumps(sealed).encode()
        while True:
            _, damaged = self._damage(MANIFEST, written)
            try:
                document = json.loads(damaged)
                text = json.dumps(document, sort_keys=True)
            except (ValueError, RecursionError):
                continue
            if isinstance(document, dict):
                seal = hashlib.sha256(text.encode()).hexdigest()
                (folder / MANIFEST).write_text(json.dumps({**document, "sha256": seal}))
                return

    def drop(self, mutant: Mutant) -> None:
        shutil.rmtree(self.root / RELEASES / mutant.id)

    def overlap(self, kind: str, items: list[set[str]]) -> float:
        """Share of the answers before the damage that are still given."""
        shared = [len(a & b) / K for a, b in zip(self._expected[kind], items, strict=True)]
        return float(np.mean(shared))


def content_of(name: str, content: bytes) -> object:
    """The content that readers of a file use: some damage of a text changes nothing."""
    if name == CURRENT:
        return content.removesuffix(b"\n")
    if name == MANIFEST:
        try:
            return json.dumps(json.loads(content), sort_keys=True)
        except (ValueError, RecursionError):
            pass
    return content


def update_digest(folder: Path, name: str) -> None:
    manifest = read_manifest(folder)
    files = {**manifest.files, name: digest(folder / name)}
    write_manifest(folder, manifest.model_copy(update={"files": files}))


def exact(
    retriever: Retriever, probes: list[list[str]]
) -> tuple[list[set[str]], list[dict[str, float]]]:
    """The K best items of each probe by numpy over the vectors alone, and every item's score."""
    best, scores = [], []
    for probe in probes:
        rows = [row for row in retriever.catalog.rows(probe) if row]
        [interests] = retriever.encode([rows])
        products = (np.asarray(retriever.vectors[1:]) @ interests.T).max(axis=1)
        products[np.array(rows) - 1] = -np.inf
        top = np.argsort(-products, kind="stable")[:K]
        best.append({retriever.catalog.ids[place] for place in top})
        scores.append(dict(zip(retriever.catalog.ids, products.tolist(), strict=True)))
    return best, scores


class Asker(threading.Thread):
    """Sends requests all the time, and counts the responses."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._client = httpx.Client(base_url=url, timeout=PATIENCE_S)
        self._done = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.releases: set[str] = set()
        self.slowest_s = 0.0

    def run(self) -> None:
        body = {"sequence": ["item-1", "item-2"], "k": K}
        while not self._done.wait(0.002):
            start = time.perf_counter()
            response = self._client.post("/recommend", json=body)
            self.slowest_s = max(self.slowest_s, time.perf_counter() - start)
            self.statuses[response.status_code] += 1
            if response.status_code == 200:
                self.releases.add(response.json()["release"])

    def stop(self) -> None:
        self._done.set()
        self.join()


class Offerer:
    """Offers mutants to a server, one after another."""

    def __init__(self, bench: Bench, server: Server) -> None:
        self._bench = bench
        self._server = server
        self._client = httpx.Client(base_url=server.url, timeout=PATIENCE_S)
        self._failed_at: str | None = None
        self.report = Report()

    def offer(self, mutant: Mutant) -> None:
        self._write_current(mutant.current)
        state = self._wait(lambda now: self._is_decided(now, mutant))
        if state["release"]["id"] == GOOD:
            self._refused(mutant, state["last_reload_error"])
        else:
            self._served(mutant)
            self._write_current(f"{GOOD}\n".encode())
            self._wait(lambda now: now["release"]["id"] == GOOD)

    def _write_current(self, content: bytes) -> None:
        """Write `current` with another modification time, so that the server sees the change."""
        path = self._bench.root / CURRENT
        before = path.stat().st_mtime_ns
        temporary = path.with_name("temporary")
        while True:
            temporary.write_bytes(content)
            if temporary.stat().st_mtime_ns != before:
                temporary.replace(path)
                return

    def _wait(self, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        def state() -> dict[str, Any] | None:
            response = self._client.get("/release")
            response.raise_for_status()
            now: dict[str, Any] = response.json()
            return now if until(now) else None

        return self._server.wait(state)

    def _is_decided(self, state: dict[str, Any], mutant: Mutant) -> bool:
        if state["release"]["id"] != GOOD:
            return True
        failure = state["last_reload_error"]
        if failure is None or failure["failed_at"] == self._failed_at:
            return False
        return mutant.file == CURRENT or failure["release"] == mutant.id

    def _refused(self, mutant: Mutant, failure: dict[str, Any]) -> None:
        self._failed_at = failure["failed_at"]
        self.report.refused[mutant.category] += 1
        message: str = failure["message"]
        self.report.reasons[_outline(message, mutant)] += 1
        if not message or len(message) > 2000:
            self._wrong(mutant, f"a message of {len(message)} characters")

    def _served(self, mutant: Mutant) -> None:
        self.report.served[mutant.category] += 1
        if not mutant.forged:
            self._wrong(mutant, "was served")
            return
        retriever = open_release(self._bench.root / RELEASES / mutant.id).retriever
        best, scores = exact(retriever, self._bench.probes)
        answered = [self._ask(probe) for probe in self._bench.probes]
        items = [{item["item_id"] for item in answer} for answer in answered]
        recall = np.mean([len(a & b) / K for a, b in zip(best, items, strict=True)])
        if recall < 0.9:
            self._wrong(mutant, f"is served with a recall of {recall:.3f}")
        scores_given = [item["score"] for answer in answered for item in answer]
        true = [s[i["item_id"]] for s, a in zip(scores, answered, strict=True) for i in a]
        if not np.allclose(np.array(scores_given, dtype=float), true, rtol=1e-3, atol=1e-4):
            self._wrong(mutant, "is served with scores that are not its own")
        overlap = self._bench.overlap(mutant.kind, items)
        least = self.report.least_overlap.get(mutant.file, 1.0)
        self.report.least_overlap[mutant.file] = round(min(least, overlap), 3)

    def _ask(self, probe: list[str]) -> list[dict[str, Any]]:
        response = self._client.post("/recommend", json={"sequence": probe, "k": K})
        response.raise_for_status()
        items: list[dict[str, Any]] = response.json()["items"]
        return items

    def _wrong(self, mutant: Mutant, problem: str) -> None:
        print(f"{mutant.category}, {mutant.damage}, {mutant.kind}: {problem}", file=sys.stderr)
        self.report.wrong.append(f"{mutant.category} ({mutant.damage}): {problem}")


def _outline(message: str, mutant: Mutant) -> str:
    """The start of a message, without parts that differ between mutants."""
    text = message.rpartition("/")[2].removeprefix(mutant.id).lstrip(": ")
    return f"{mutant.file}: " + " ".join(re.sub(r"[\d,]+", "", text).split())[:60]


def measure(root: Path, count: int, seed: int) -> dict[str, Any]:
    write_release(root, GOOD, seed=1)
    point(root, GOOD)
    bench = Bench(root, seed)
    start = time.perf_counter()
    with serving(root) as server:
        offering, asker = Offerer(bench, server), Asker(server.url)
        peak = server.peak_mib
        asker.start()
        for number in range(count):
            mutant = bench.make(number, forged=number % 2 == 1)
            offering.offer(mutant)
            bench.drop(mutant)
            if number % 1000 == 999:
                print(f"{number + 1:,} of {count:,}", file=sys.stderr)
        asker.stop()
        growth = server.peak_mib - peak
        alive = server.is_alive
    report = offering.report
    for reason, times in report.reasons.most_common(30):
        print(f"{times:>6}  {reason}", file=sys.stderr)
    failed = asker.statuses.total() - asker.statuses[200]
    good = alive and not report.wrong and not failed and growth < GROWTH_MIB
    return {
        "evidence": "mutations",
        "passed": good,
        "mutants": count,
        "refused": dict(sorted(report.refused.items())),
        "served_as_releases_of_their_own": dict(sorted(report.served.items())),
        "overlap_with_answers_before": report.least_overlap,
        "wrong": report.wrong[:20],
        "alive": alive,
        "asked_meanwhile": asker.statuses.total(),
        "not_200": failed,
        "slowest_ms": round(asker.slowest_s * 1e3, 1),
        "peak_growth_mib": round(growth, 1),
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="re4-mutations-") as root:
        result = measure(Path(root), options.count, options.seed)
    print(json.dumps(result))
    raise SystemExit(not result["passed"])


if __name__ == "__main__":
    main()

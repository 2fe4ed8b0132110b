"""Nightly runs that are killed and then run again.

    python tests/evidence/night_kills.py [--boundaries 0] [--each 1] [--random 100] [--seed 0]

On a synthetic log, with a live release. The run is killed just before a file is renamed into place,
which completes a step, a checkpoint, a draft or a release: at each such boundary, or at a random
sample of them, each --each times; and at random points, alternately before a change of the file
system under the root and after a random time. After each kill `current` must name a release that
verifies, and every listed release must be complete. The run that is repeated must publish the same
weights and metrics as an uninterrupted one. The last line is one JSON object. If anything fails,
the exit code is 1 and the working folder is kept.

Each trial forks a child instead of starting an interpreter. The parent itself runs neither torch
nor faiss, so that a child inherits none of their threads or locks.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # else torch imports it in every child
from children import begin, end_of, in_child

from index.release.listing import list_releases, verify
from index.release.manifest import ENCODER, VECTORS, read_manifest
from index.release.reading import open_release, read_current
from training.data.event_window import DAY_S
from training.data.synthetic import write_synthetic
from training.nightly.config import NightConfig
from training.nightly.run import run_nightly
from training.nightly.run_folders import RUNS
from training.nightly.step_store import STATE

torch.set_num_threads(1)
EventFilter = Callable[[str, tuple[Any, ...]], bool]
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
_PROGRESS_EVERY = 25
FIT = {"dim": 8, "interests": 2, "hidden": 8, "negatives": 20, "epochs": 1, "batch_size": 256}
LOG_START = 1_735_689_600  # 2025-01-01, the start of synthetic logs


def kill_at(point: int, matches: EventFilter) -> None:
    """Kill this process just before the matching event number `point`, counted from now."""
    remaining = point

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal remaining
        if event in _CHANGES or event == "open":
            remaining -= matches(event, arguments)
            if remaining == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def changes_under(root: Path) -> EventFilter:
    def matches(event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            return bool(flags & (os.O_WRONLY | os.O_RDWR)) and str(arguments[0]).startswith(
                str(root)
            )
        return str(arguments[0]).startswith(str(root))

    return matches


def is_boundary(event: str, arguments: tuple[Any, ...]) -> bool:
    return event == "os.rename"


class Trials:
    """The same run, repeated from the same root."""

    def __init__(self, scratch: Path, seed: int) -> None:
        self.config, self._template = prepare(scratch)
        self.random = random.Random(seed)
        started = time.monotonic()
        self.total = count_events(self.config, scratch)
        self._seconds = time.monotonic() - started
        self._expected = release_facts(self.config.root)
        self.kills: Counter[str] = Counter()

    def plan(self, boundaries: int, each: int, random_kills: int) -> list[tuple[str, int]]:
        """The kind and point of each kill: before a boundary, before a change, or after a time."""
        points = list(range(1, self.total["boundaries"] + 1))
        if boundaries:
            points = self.random.sample(points, boundaries)
        changes = self.total["changes"]
        return [("boundary", point) for point in points] * each + [
            ("moment", 0) if number % 2 else ("change", self.random.randint(1, changes))
            for number in range(random_kills)
        ]

    def run_one(self, kind: str, point: int) -> None:
        shutil.rmtree(self.config.root)
        shutil.copytree(self._template, self.config.root)
        status = self._kill_after_time() if kind == "moment" else self._kill_before(kind, point)
        if status == -signal.SIGKILL:
            self.kills[f"{kind} {point}" if kind == "boundary" else kind] += 1
            check(self.config.root, None)
            status = in_child(self._run)
        # 4: everything was done but the record of it.
        assert status in (0, 4), f"{kind} {point}: {status}"
        check(self.config.root, self._expected)

    def _run(self) -> int:
        return run_nightly(self.config).exit_code

    def _kill_before(self, kind: str, point: int) -> int:
        matches = is_boundary if kind == "boundary" else changes_under(self.config.root)

        def work() -> int:
            kill_at(point, matches)
            return self._run()

        return in_child(work)

    def _kill_after_time(self) -> int:
        child = begin(self._run)
        time.sleep(self.random.uniform(0, self._seconds))
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        return end_of(child)


def check(root: Path, expected: dict[str, Any] | None) -> None:
    """Invariants after any kill and, with `expected`, of a run that has ended."""

    def work() -> int:
        current = read_current(root)
        assert current is not None
        open_release(root / "releases" / current)
        assert all(release.problem is None for release in list_releases(root))
        assert all(verdict.problem is None for verdict in verify(root))
        for state in (root / RUNS).glob(f"*/{STATE}"):
            json.loads(state.read_text())
        if expected is None:
            assert len(list_releases(root)) <= 2
        else:
            assert release_facts(root) == expected, (release_facts(root), expected)
            assert not list((root / "drafts").iterdir())
        return 0

    assert in_child(work) == 0, "see above"


def release_facts(root: Path) -> dict[str, Any]:
    """What is equal in two runs on the same data."""
    current = read_current(root)
    assert current is not None
    manifest = read_manifest(root / "releases" / current)
    files = {name: manifest.files[name].sha256 for name in (ENCODER, VECTORS)}
    return {"id": current, "parent": manifest.parent, "metrics": manifest.metrics, **files}


def count_events(config: NightConfig, scratch: Path) -> dict[str, int]:
    """The number of boundaries and changes of a run."""

    def work() -> int:
        total = {"boundaries": 0, "changes": 0}
        is_change = changes_under(config.root)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event in _CHANGES or event == "open":
                total["boundaries"] += is_boundary(event, arguments)
                total["changes"] += is_change(event, arguments)

        sys.addaudithook(hook)
        code = run_nightly(config).exit_code
        (scratch / "counts.json").write_text(json.dumps(total))
        return code

    assert in_child(work) == 0, "the run fails without being killed"
    total: dict[str, int] = json.loads((scratch / "counts.json").read_text())
    return total


def prepare(scratch: Path) -> tuple[NightConfig, Path]:
    """The settings of the run, and a copy of the root that it starts from."""
    write_synthetic(scratch, users=120, items=60, seed=1)
    config = NightConfig(
        root=scratch / "root",
        events=scratch / "none",
        log=scratch / "interactions.parquet",
        metric="recall@10",
        holdout_days=20,
        min_holdout_users=5,
        metric_drop=1,
        popularity_drop=1,  # the gate must pass on this small log
        lead_drop=9,
        plots=False,
        fit=FIT,
        until=LOG_START + 100 * DAY_S,
    )

    def work() -> int:
        return run_nightly(config).exit_code

    assert in_child(work) == 0, "the first run fails"
    shutil.copytree(config.root, scratch / "template")
    return config.model_copy(update={"until": None}), scratch / "template"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boundaries", type=int, default=0, help="0 is all")
    parser.add_argument("--each", type=int, default=1, help="kills at each boundary")
    parser.add_argument("--random", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="re4-runs-"))
    print(f"working in {scratch}, which is kept if anything fails", file=sys.stderr)
    trials = Trials(scratch, arguments.seed)
    plan = trials.plan(arguments.boundaries, arguments.each, arguments.random)
    for number, (kind, point) in enumerate(plan, start=1):
        trials.run_one(kind, point)
        if number % _PROGRESS_EVERY == 0:
            print(f"{number} of {len(plan)}: {dict(trials.kills)}", file=sys.stderr, flush=True)
    shutil.rmtree(scratch)
    kills = trials.kills
    at_boundaries = {point: count for point, count in kills.items() if "boundary" in point}
    summary = {
        "kills": kills.total(),
        "at_boundaries": sum(at_boundaries.values()),
        "fewest_at_a_boundary": min(at_boundaries.values(), default=0),
        "before_changes": kills["change"],
        "at_moments": kills["moment"],
    }
    print(json.dumps({"passed": True, **summary, **trials.total}))


if __name__ == "__main__":
    main()

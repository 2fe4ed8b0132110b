"""Nights that are killed, and run again.

    python tests/evidence/night_kills.py [--boundaries 0] [--each 1] [--random 100] [--seed 0]

On a synthetic log, with a release that is live. The night is killed just before a file is renamed
into place, which is how steps, checkpoints, drafts and releases end: at each such boundary, or so
many drawn by chance, each so many times; and at random, in turn before a change of the file system
under the root and at a moment. After each kill `current` must name a release that verifies, with
every release listed whole; and the night that is run again must publish what an unbroken one does,
weights and metrics alike. The last line is one JSON object; the status is 1 if anything fails, and
then the folder it worked in is kept.

It forks a child for each trial instead of starting an interpreter, and runs neither torch nor faiss
itself, so that a child inherits no thread and no held lock of theirs.
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
import torch._dynamo  # which torch otherwise imports in every child anew
import torch.utils._device
from children import begin, end_of, in_child

from index.release.listing import list_releases, verify
from index.release.manifest import ENCODER, VECTORS, read_manifest
from index.release.reading import open_release, read_current
from training.data.event_window import DAY_S
from training.data.synthetic import write_synthetic
from training.nightly.config import NightConfig
from training.nightly.run import NIGHTS, nightly
from training.nightly.step_store import STATE

torch.set_num_threads(1)
Wanted = Callable[[str, tuple[Any, ...]], bool]
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
_TOLD_EVERY = 25
FIT = {"dim": 8, "interests": 2, "hidden": 8, "negatives": 20, "epochs": 1, "batch_size": 256}
FIRST = 1_735_689_600  # 2025-01-01, where synthetic logs begin


def kill_at(point: int, wanted: Wanted) -> None:
    """From now on, the process dies just before change number `point` of those wanted."""
    left = point

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in _CHANGES or event == "open":
            left -= wanted(event, arguments)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def of_root(root: Path) -> Wanted:
    def wanted(event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            return bool(flags & (os.O_WRONLY | os.O_RDWR)) and str(arguments[0]).startswith(
                str(root)
            )
        return str(arguments[0]).startswith(str(root))

    return wanted


def boundary(event: str, arguments: tuple[Any, ...]) -> bool:
    return event == "os.rename"


class Trials:
    """The night, over and over, each time from the same root."""

    def __init__(self, scratch: Path, seed: int) -> None:
        self.config, self._template = prepared(scratch)
        self.draw = random.Random(seed)
        started = time.monotonic()
        self.total = counted(self.config, scratch)
        self._seconds = time.monotonic() - started
        self._wanted = result(self.config.root)
        self.killed: Counter[str] = Counter()

    def plan(self, boundaries: int, each: int, by_chance: int) -> list[tuple[str, int]]:
        """Where each is killed: before a boundary, before a change, or at a moment."""
        ends = list(range(1, self.total["boundaries"] + 1))
        if boundaries:
            ends = self.draw.sample(ends, boundaries)
        changes = self.total["changes"]
        return [("boundary", end) for end in ends] * each + [
            ("moment", 0) if number % 2 else ("change", self.draw.randint(1, changes))
            for number in range(by_chance)
        ]

    def one(self, kind: str, point: int) -> None:
        shutil.rmtree(self.config.root)
        shutil.copytree(self._template, self.config.root)
        end = self._at_a_moment() if kind == "moment" else self._before(kind, point)
        if end == -signal.SIGKILL:
            self.killed[f"{kind} {point}" if kind == "boundary" else kind] += 1
            check(self.config.root, None)
            end = in_child(self._night)
        assert end in (0, 4), f"{kind} {point}: {end}"  # 4: all was done but to say so
        check(self.config.root, self._wanted)

    def _night(self) -> int:
        return nightly(self.config).exit_code

    def _before(self, kind: str, point: int) -> int:
        wanted = boundary if kind == "boundary" else of_root(self.config.root)

        def work() -> int:
            kill_at(point, wanted)
            return self._night()

        return in_child(work)

    def _at_a_moment(self) -> int:
        child = begin(self._night)
        time.sleep(self.draw.uniform(0, self._seconds))
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        return end_of(child)


def check(root: Path, wanted: dict[str, Any] | None) -> None:
    """What holds whenever a night was cut short; and, with `wanted`, when it has ended."""

    def work() -> int:
        current = read_current(root)
        assert current is not None
        open_release(root / "releases" / current)
        assert all(release.problem is None for release in list_releases(root))
        assert all(verdict.problem is None for verdict in verify(root))
        for state in (root / NIGHTS).glob(f"*/{STATE}"):
            json.loads(state.read_text())
        if wanted is None:
            assert len(list_releases(root)) <= 2
        else:
            assert result(root) == wanted, (result(root), wanted)
            assert not list((root / "drafts").iterdir())
        return 0

    assert in_child(work) == 0, "see above"


def result(root: Path) -> dict[str, Any]:
    """What two nights on the same data have in common."""
    current = read_current(root)
    assert current is not None
    manifest = read_manifest(root / "releases" / current)
    files = {name: manifest.files[name].sha256 for name in (ENCODER, VECTORS)}
    return {"id": current, "parent": manifest.parent, "metrics": manifest.metrics, **files}


def counted(config: NightConfig, scratch: Path) -> dict[str, int]:
    """How many boundaries and changes a night has."""

    def work() -> int:
        total = {"boundaries": 0, "changes": 0}
        wanted = of_root(config.root)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event in _CHANGES or event == "open":
                total["boundaries"] += boundary(event, arguments)
                total["changes"] += wanted(event, arguments)

        sys.addaudithook(hook)
        code = nightly(config).exit_code
        (scratch / "counted").write_text(json.dumps(total))
        return code

    assert in_child(work) == 0, "the night fails without being killed"
    total: dict[str, int] = json.loads((scratch / "counted").read_text())
    return total


def prepared(scratch: Path) -> tuple[NightConfig, Path]:
    """The night, and a root as it finds it."""
    write_synthetic(scratch, users=120, items=60, seed=1)
    config = NightConfig(
        root=scratch / "root",
        events=scratch / "none",
        log=scratch / "interactions.parquet",
        metric="recall@10",
        holdout_days=20,
        min_holdout_users=5,
        metric_drop=1,  # of so small a log the gate is no matter here
        lead_drop=9,
        plots=False,
        fit=FIT,
        until=FIRST + 100 * DAY_S,
    )

    def work() -> int:
        return nightly(config).exit_code

    assert in_child(work) == 0, "the first night fails"
    shutil.copytree(config.root, scratch / "template")
    return config.model_copy(update={"until": None}), scratch / "template"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boundaries", type=int, default=0, help="0 is all")
    parser.add_argument("--each", type=int, default=1, help="kills at each boundary")
    parser.add_argument("--random", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="re4-nights-"))
    print(f"in {scratch}, which is kept if anything fails", file=sys.stderr)
    trials = Trials(scratch, arguments.seed)
    plan = trials.plan(arguments.boundaries, arguments.each, arguments.random)
    for number, (kind, point) in enumerate(plan, start=1):
        trials.one(kind, point)
        if number % _TOLD_EVERY == 0:
            print(f"{number} of {len(plan)}: {dict(trials.killed)}", file=sys.stderr, flush=True)
    shutil.rmtree(scratch)
    kills = trials.killed
    at_boundaries = {where: count for where, count in kills.items() if "boundary" in where}
    told = {
        "kills": kills.total(),
        "at_boundaries": sum(at_boundaries.values()),
        "fewest_at_a_boundary": min(at_boundaries.values(), default=0),
        "before_changes": kills["change"],
        "at_moments": kills["moment"],
    }
    print(json.dumps({"passed": True, **told, **trials.total}))


if __name__ == "__main__":
    main()

"""Nights that are killed, and run again.

    python tests/evidence/night_kills.py [--boundaries 0] [--random 100] [--seed 0]

On a synthetic log, with a release that is live. The night is killed just before a file is renamed
into place, which is how steps, checkpoints, drafts and releases end: at each such boundary, or so
many drawn by chance; and at random changes of the file system under the root. After each kill
`current` must name a release that verifies, with every release listed whole; and the night that is
run again must publish what an unbroken one does, weights and metrics alike. The last line is one
JSON object; the status is 1 if anything fails.

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
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # which torch otherwise imports in every child anew
import torch.utils._device

from index.publish import list_releases, verify
from index.release import ENCODER, VECTORS, open_release, read_current, read_manifest
from training.night_config import NightConfig
from training.night_report import write_report  # noqa: F401  (once, and not in every child)
from training.nightly import NIGHTS, nightly
from training.steps import STATE
from training.synthetic import write_synthetic
from training.window import DAY_S

torch.set_num_threads(1)
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
_MANY = 10**9
FIT = {"dim": 8, "interests": 2, "hidden": 8, "negatives": 20, "epochs": 1, "batch_size": 256}
FIRST = 1_735_689_600  # 2025-01-01, where synthetic logs begin


def in_child(work: Callable[[], int]) -> int:
    """How the child that did the work ended: what it returned, or its signal, negative."""
    child = os.fork()
    if child == 0:
        os.fsync = lambda descriptor: None  # a kill loses nothing written, and disks are slow
        try:
            os._exit(work())
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(root: Path, point: int, wanted: Callable[[str, tuple[Any, ...]], bool]) -> None:
    """From now on, the process dies just before change number `point` of those wanted."""
    left = point

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in _CHANGES or event == "open":
            left -= wanted(event, arguments)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def of_root(root: Path) -> Callable[[str, tuple[Any, ...]], bool]:
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


def run(config: NightConfig, point: int, wanted: Callable[[str, tuple[Any, ...]], bool]) -> int:
    def work() -> int:
        kill_at(config.root, point, wanted)
        return nightly(config).exit_code

    return in_child(work)


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
        held_out_days=20,
        min_cases=5,
        metric_drop=1,  # of so small a log the gate is no matter here
        day_drop=9,
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
    parser.add_argument("--random", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        config, template = prepared(scratch)
        root = config.root

        def afresh() -> None:
            shutil.rmtree(root)
            shutil.copytree(template, root)

        total = counted(config, scratch)
        wanted = result(root)
        draw = random.Random(arguments.seed)
        ends = list(range(1, total["boundaries"] + 1))
        if arguments.boundaries:
            ends = draw.sample(ends, arguments.boundaries)
        points = [(point, boundary) for point in ends]
        points += [
            (draw.randint(1, total["changes"]), of_root(root)) for _ in range(arguments.random)
        ]
        kills = 0
        for point, kind in points:
            afresh()
            end = run(config, point, kind)
            if end == -signal.SIGKILL:
                kills += 1
                check(root, None)
                end = run(config, _MANY, kind)
            assert end in (0, 4), f"{kind}, {point}: {end}"  # 4: all was done but to say so
            check(root, wanted)
    print(json.dumps({"passed": True, "kills": kills, **total}))


if __name__ == "__main__":
    main()

"""A fit by two processes: equal to that by one, whatever rank is killed, whenever.

    python tests/evidence/rank_kills.py [--kills 10] [--users 2000] [--epochs 6] [--seed 0]
        [--shards]

A synthetic log is fitted by one process, and by two that torchrun starts. Then again by two, of
which one, drawn at random, is killed (SIGKILL) at a random moment; the same command is given again,
until it ends, and after that in a new folder, until so many ranks were killed. Losses and metrics
of one process and of two are compared, and the item vectors of killed fits with those of the fit by
two that was not. The last line is one JSON object. --shards: the two hold the item table in shards.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from index.release.manifest import VECTORS
from training.data.synthetic import write_synthetic

RANKS = 2
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", str(RANKS)]
METRIC, LOSS_TOLERANCE = "recall@50", 1e-3
SMALL = ["--encoder", "re4", "--interests", "4", "--dim", "16"]
SMALL += ["--negatives", "100", "--batch-size", "127"]
ADAGRAD = ["--item-optimizer=adagrad", "--item-learning-rate=0.05"]
_SEEDS = 3
_LAST = 0.9  # of the duration of a whole fit: kills come before


def fit(
    log: Path, root: Path, epochs: int, ranks: int, shards: bool, seed: int = 0
) -> subprocess.Popen[bytes]:
    launcher = TORCHRUN if ranks > 1 else []
    form = [*ADAGRAD, *(["--shard-items=true"] if ranks > 1 else [])] if shards else []
    command = [*launcher, "-m", "training", "fit", str(log), "--root", str(root), *SMALL, *form]
    return subprocess.Popen(
        [sys.executable, *command, "--device=cpu", f"--epochs={epochs}", f"--seed={seed}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def completed(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def kill_one(process: subprocess.Popen[bytes], generator: random.Random) -> int | None:
    """The rank that was killed; None if there was none any more."""
    with suppress(psutil.NoSuchProcess):
        running = [
            child
            for child in psutil.Process(process.pid).children()
            if child.status() != psutil.STATUS_ZOMBIE and "training" in child.cmdline()
        ]
        if len(running) == RANKS:
            rank = generator.randrange(RANKS)
            running[rank].send_signal(signal.SIGKILL)
            return rank
    return None


def drafts_of(root: Path) -> list[Path]:
    return [path for path in root.glob("drafts/*") if not path.name.startswith(".")]


def result_of(root: Path) -> dict[str, Any]:
    [draft] = drafts_of(root)
    left = [path.name for path in (root / "drafts").iterdir() if path.name.startswith(".")]
    records = (draft / "history.jsonl").read_text().splitlines()
    vectors = np.load(draft / VECTORS)
    metrics = json.loads((draft / "manifest.json").read_text())["metrics"]["validation"]
    losses = [json.loads(record)["losses"]["loss"] for record in records]
    return {"metric": metrics[METRIC], "losses": losses, "vectors": vectors, "left": left}


def killed_until_done(
    log: Path,
    root: Path,
    epochs: int,
    shards: bool,
    within_s: float,
    kills: int,
    generator: random.Random,
) -> list[int]:
    """The ranks that were killed, `kills` at most, before a fit got to its end."""
    killed: list[int] = []
    while True:
        process = fit(log, root, epochs, RANKS, shards)
        if len(killed) < kills:
            with suppress(subprocess.TimeoutExpired):
                process.wait(generator.uniform(0.3, _LAST) * within_s)
            if (rank := kill_one(process, generator)) is not None:
                killed.append(rank)
                process.communicate()
                if not drafts_of(root):
                    continue
                return killed  # rank 0 had written the draft before the other was killed
        completed(process)
        return killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"kills": 10, "users": 2000, "epochs": 6, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--shards", action="store_true")
    arguments = parser.parse_args()
    shards: bool = arguments.shards
    generator, epochs = random.Random(arguments.seed), arguments.epochs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_synthetic(folder, arguments.users, max(arguments.users // 2, 50), arguments.seed)
        log = folder / "interactions.parquet"
        for seed in range(_SEEDS):
            completed(fit(log, folder / f"one-{seed}", epochs, 1, shards, seed))
        by_seed = [result_of(folder / f"one-{seed}") for seed in range(_SEEDS)]
        start = time.monotonic()
        completed(fit(log, folder / "two", epochs, RANKS, shards))
        duration = time.monotonic() - start
        one, two = by_seed[0], result_of(folder / "two")
        killed: list[int] = []
        same, fits = True, 0
        while len(killed) < arguments.kills:
            root, fits = folder / f"killed-{fits}", fits + 1
            left = arguments.kills - len(killed)
            killed += killed_until_done(log, root, epochs, shards, duration, left, generator)
            ended = result_of(root)
            same &= bool(np.array_equal(ended["vectors"], two["vectors"])) and not ended["left"]
    difference = abs(one["losses"][0] - two["losses"][0])
    metrics = [result["metric"] for result in by_seed]
    summary = {
        "evidence": "rank-kills",
        "shards": shards,
        "date": date.today().isoformat(),
        "kills": len(killed),
        "killed_by_rank": [killed.count(rank) for rank in range(RANKS)],
        "fits": fits,
        "same_vectors_after_kills": same,
        f"{METRIC}_one": round(one["metric"], 4),
        f"{METRIC}_two": round(two["metric"], 4),
        f"{METRIC}_one_by_seed": [round(metric, 4) for metric in metrics],
        "first_loss_difference": float(f"{difference:.2g}"),
        "passed": same
        and difference < LOSS_TOLERANCE
        and abs(one["metric"] - two["metric"]) <= max(metrics) - min(metrics),
    }
    print(json.dumps(summary))
    sys.exit(not summary["passed"])


if __name__ == "__main__":
    main()

"""Accuracy against diversity of the interests, over all logs and methods compared, as one plot.

    python tests/evidence/accuracy_diversity.py training/results/*/ --out accuracy-diversity.png

Reads every CSV of a comparison (`compare.csv`, or a copy of it) in the folders. A point is a system
with several interests, mean over the seeds that it shares with one interest of the same encoder and
settings: across, the share of distinct items in its K lists; up, its metric against that one
interest. Systems that have no such counterpart are left out. Prints the points as Markdown.
"""

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from training.evaluation.metrics import DISTINCT_SHARE
from training.experiments.compare import system_config
from training.experiments.report import markdown_table

METRICS = ("recall@50", "ndcg@50", "minor_recall@50")
OF_SEVERAL = {"interests", "objective", "mutual_information", "readout", "own_share"}
MARKERS = {"linear": "s", "re4": "^", "transformer": "o"}

Runs = dict[int, dict[str, str]]  # by seed


@dataclass(frozen=True)
class Point:
    """Several interests against one: share of distinct items, relative change of each metric."""

    log: str
    system: str
    seeds: int
    share: float
    changes: dict[str, float]

    @property
    def encoder(self) -> str:
        return self.system.partition(":")[0]


def read_runs(folder: Path) -> dict[str, Runs]:
    """The runs of each system in the CSVs of a folder, by seed."""
    systems: dict[str, Runs] = {}
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row.get(DISTINCT_SHARE):
                    systems.setdefault(row["system"], {})[int(row["seed"])] = row
    return systems


def with_one_interest(system: str, systems: dict[str, Runs]) -> Runs | None:
    """The runs of the same encoder and settings but those of several interests."""
    wanted = system_config(system, {}, "accurate").model_dump(exclude=OF_SEVERAL)
    for other, runs in systems.items():
        config = system_config(other, {}, "accurate")
        if config.interests == 1 and config.model_dump(exclude=OF_SEVERAL) == wanted:
            return runs
    return None


def points_of(folder: Path) -> Iterator[Point]:
    systems = read_runs(folder)
    for system, runs in systems.items():
        one = with_one_interest(system, systems)
        if one is None or one is runs:
            continue
        seeds = sorted(runs.keys() & one.keys())
        if not seeds:
            continue
        measured = [name for name in METRICS if runs[seeds[0]].get(name)]
        changes = {name: mean(runs, seeds, name) / mean(one, seeds, name) - 1 for name in measured}
        log, share = folder.name.removesuffix("-interests"), mean(runs, seeds, DISTINCT_SHARE)
        yield Point(log, system, len(seeds), share, changes)


def mean(runs: Runs, seeds: Sequence[int], name: str) -> float:
    return float(np.mean([float(runs[seed][name]) for seed in seeds]))


def plot(points: Sequence[Point], path: Path) -> None:
    figure, panels = plt.subplots(
        1, len(METRICS), figsize=(5 * len(METRICS), 5), layout="constrained", sharey=True
    )
    logs = sorted({point.log for point in points})
    for axes, metric in zip(panels, METRICS, strict=True):
        for point in points:
            if metric in point.changes:
                axes.plot(
                    point.share,
                    100 * point.changes[metric],
                    linestyle="none",
                    marker=MARKERS[point.encoder],
                    color=f"C{logs.index(point.log)}",
                )
        axes.axhline(0, linestyle="--", color="gray")
        axes.set_xlabel("share of distinct items in the lists of the interests")
        axes.set_ylabel(f"{metric} against one interest, %")
    for number, log in enumerate(logs):
        panels[0].plot([], [], linestyle="none", marker="o", color=f"C{number}", label=log)
    for encoder, marker in MARKERS.items():
        panels[0].plot([], [], linestyle="none", marker=marker, color="black", label=encoder)
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    points = [point for folder in arguments.folders for point in points_of(folder)]
    rows = [
        [
            point.log,
            point.system,
            str(point.seeds),
            f"{point.share:.2f}",
            *(
                f"{100 * point.changes[metric]:+.1f} %" if metric in point.changes else ""
                for metric in METRICS
            ),
        ]
        for point in sorted(points, key=lambda point: (point.log, point.share))
    ]
    print(markdown_table(["log", "system", "seeds", DISTINCT_SHARE, *METRICS], rows))
    plot(points, arguments.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

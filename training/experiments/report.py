"""Systems side by side as a Markdown table, a CSV file and plots."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from training.experiments.runner import System, significance

SHOWN = ("recall@20", "recall@50", "ndcg@20", "ndcg@50", "hit@20", "hit@50")
JUDGED = "recall@50"
_HEALTH = ("interest_cosine", "interest_entropy", "interest_union")
_COST = ("samples/s", "encode us")


def table(systems: Sequence[System], metrics: Sequence[str] = SHOWN) -> str:
    """Mean and standard deviation over seeds; the best mean is bold.

    p: of the paired difference over users, in JUDGED, to the best other system.
    """
    head = ["system", *metrics, f"p ({JUDGED})", *_HEALTH, *_COST]
    best = {metric: max(system.values(metric).mean() for system in systems) for metric in metrics}
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for system in systems:
        cells = [system.name]
        for metric in metrics:
            values = system.values(metric)
            spread = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
            mark = "**" if values.mean() == best[metric] else ""
            cells.append(f"{mark}{values.mean():.4f}{mark}{spread}")
        cells += [_against_best(system, systems, JUDGED), *_health(system), *_cost(system)]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _against_best(system: System, systems: Sequence[System], metric: str) -> str:
    others = [other for other in systems if other is not system]
    if not others:
        return ""
    rival = max(others, key=lambda other: float(other.values(metric).mean()))
    return f"{significance(system, rival, metric):.2g}"


def _health(system: System) -> list[str]:
    tests = [outcome.test for outcome in system.outcomes]
    return [f"{np.mean([t[n] for t in tests]):.2f}" if n in tests[0] else "" for n in _HEALTH]


def _cost(system: System) -> list[str]:
    speed, encode = (
        np.mean([getattr(outcome, name) for outcome in system.outcomes])
        for name in ("samples_per_s", "encode_us")
    )
    return [f"{speed:,.0f}" if speed else "", f"{encode:,.0f}" if encode else ""]


def write_csv(path: Path, systems: Sequence[System]) -> None:
    """A line a run: system, seed, and every test metric."""
    names = sorted({name for s in systems for o in s.outcomes for name in o.test})
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["system", "seed", *names])
        for system in systems:
            for outcome in system.outcomes:
                values = [outcome.test.get(name, "") for name in names]
                writer.writerow([system.name, outcome.config.get("seed", ""), *values])


def plot_bars(path: Path, systems: Sequence[System], metric: str = "recall@50") -> None:
    figure, axes = plt.subplots(figsize=(7, 0.4 * len(systems) + 1.2), layout="constrained")
    ordered = sorted(systems, key=lambda system: float(system.values(metric).mean()))
    means = [float(system.values(metric).mean()) for system in ordered]
    spreads = [float(system.values(metric).std()) for system in ordered]
    axes.barh([system.name for system in ordered], means, xerr=spreads, color="#4878a8")
    axes.set_xlabel(f"test {metric}, mean and standard deviation over seeds")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_curves(path: Path, systems: Sequence[System], metric: str = "recall@20") -> None:
    """Validation metric by epoch (Re4, Figure 3), mean over the seeds that got so far."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for system in systems:
        curves = [[r["validation"][metric] for r in o.curve] for o in system.outcomes if o.curve]
        if not curves:
            continue
        shortest = min(map(len, curves))
        mean = np.mean([curve[:shortest] for curve in curves], axis=0)
        axes.plot(range(1, shortest + 1), mean, marker=".", label=system.name)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"validation {metric}")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_comparison(
    folder: Path, systems: Sequence[System], by_kind: str, say: Callable[[str], None]
) -> Path:
    """compare.md, compare.csv, compare.png and curves.png; returns the first.

    by_kind: a second table, of kinds of users.
    """
    markdown = folder / "compare.md"
    told = table(systems) + "\n" + by_kind
    markdown.write_text(told, encoding="utf-8")
    write_csv(folder / "compare.csv", systems)
    plot_bars(folder / "compare.png", systems)
    plot_curves(folder / "curves.png", systems)
    say(told)
    return markdown

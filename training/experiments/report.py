"""Results of systems as Markdown tables, a CSV file and plots."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from tabulate import tabulate

from index.encoders import ENCODERS
from training.evaluation.interest_metrics import INTEREST_METRICS
from training.evaluation.metrics import DISTINCT_SHARE, metric_names
from training.experiments.runner import System, significance

DEFAULT_METRICS = metric_names("comparison")
TESTED_METRIC = "recall@50"
_TRADED = ("recall@50", "minor_recall@50")
_COST_COLUMNS = ("samples/s", "encode us")


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column is left-aligned, the others right-aligned. Ends with a newline."""
    alignment = ["left", *["right"] * (len(headers) - 1)]
    table = tabulate(rows, headers, tablefmt="pipe", colalign=alignment, disable_numparse=True)
    return table + "\n"


def results_table(systems: Sequence[System], metrics: Sequence[str] = DEFAULT_METRICS) -> str:
    """Mean and standard deviation over seeds; the best mean is bold.

    The column p is the significance of the difference in TESTED_METRIC, paired over users, to the
    best other system.
    """
    headers = ["system", *metrics, f"p ({TESTED_METRIC})", *INTEREST_METRICS, *_COST_COLUMNS]
    best = {metric: max(system.values(metric).mean() for system in systems) for metric in metrics}
    rows = []
    for system in systems:
        cells = [system.name]
        for metric in metrics:
            values = system.values(metric)
            spread = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
            mark = "**" if values.mean() == best[metric] else ""
            cells.append(f"{mark}{values.mean():.4f}{mark}{spread}")
        cells += [_p_value(system, systems), *_interest_cells(system), *_cost_cells(system)]
        rows.append(cells)
    return markdown_table(headers, rows)


def _p_value(system: System, systems: Sequence[System]) -> str:
    rivals = [rival for rival in systems if rival is not system]
    if not rivals:
        return ""
    best = max(rivals, key=lambda rival: float(rival.values(TESTED_METRIC).mean()))
    return f"{significance(system, best, TESTED_METRIC):.2g}"


def _interest_cells(system: System) -> list[str]:
    tests = [run.test for run in system.runs]
    return [
        f"{np.mean([test[name] for test in tests]):.2f}" if name in tests[0] else ""
        for name in INTEREST_METRICS
    ]


def _cost_cells(system: System) -> list[str]:
    samples_per_s = np.mean([run.samples_per_s for run in system.runs])
    encode_us = np.mean([run.encode_us for run in system.runs])
    return [f"{value:,.0f}" if value else "" for value in (samples_per_s, encode_us)]


def write_csv(path: Path, systems: Sequence[System]) -> None:
    """One row per run: system, seed, and every test metric."""
    names = sorted({name for system in systems for run in system.runs for name in run.test})
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["system", "seed", *names])
        for system in systems:
            for run in system.runs:
                values = [run.test.get(name, "") for name in names]
                writer.writerow([system.name, run.config.get("seed", ""), *values])


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
    """Validation metric by epoch (Re4, Figure 3): mean over seeds, up to the shortest run."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for system in systems:
        curves = [[r["validation"][metric] for r in run.curve] for run in system.runs if run.curve]
        if not curves:
            continue
        shortest = min(map(len, curves))
        mean = np.mean([curve[:shortest] for curve in curves], axis=0)
        axes.plot(range(1, shortest + 1), mean, marker=".", label=system.name)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"validation {metric}")
    if axes.lines:
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_interests(path: Path, systems: Sequence[System]) -> None:
    """What distinct lists cost: metrics of systems of K > 1, means over seeds, by the share of
    distinct items in their K lists. Dashed: the best of the other systems."""
    metrics = [name for name in _TRADED if any(name in system.runs[0].test for system in systems)]
    figure, panels = plt.subplots(
        1, len(metrics), figsize=(6 * len(metrics), 4.5), layout="constrained", squeeze=False
    )
    several = [system for system in systems if has_several_interests(system)]
    for axes, metric in zip(panels[0], metrics, strict=True):
        for system in several:
            share, value = _mean(system, DISTINCT_SHARE), _mean(system, metric)
            axes.plot(share, value, marker="o", linestyle="none", label=system.name)
        single = [_mean(system, metric) for system in systems if system not in several]
        if single:
            axes.axhline(max(single), linestyle="--", color="gray")
        axes.set_xlabel(f"{DISTINCT_SHARE} of the lists of the interests")
        axes.set_ylabel(f"test {metric}")
    panels[0][0].legend(fontsize="xx-small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _mean(system: System, metric: str) -> float:
    """Over seeds; nan if it is not known of this system."""
    return float(np.mean([run.test.get(metric, np.nan) for run in system.runs]))


def has_several_interests(system: System) -> bool:
    """Whether it was trained with K > 1; baselines have no interests."""
    run = system.runs[0]
    if DISTINCT_SHARE not in run.test:
        return False
    can = "interests" in ENCODERS[run.config["encoder"]].Arguments.model_fields
    return can and run.config["interests"] > 1


def write_comparison(
    folder: Path,
    systems: Sequence[System],
    sections: Sequence[str],
    on_message: Callable[[str], None],
) -> Path:
    """Write compare.md, compare.csv, compare.png and curves.png; returns the first.

    sections: further tables for compare.md. interests.png, if a system has several interests.
    """
    markdown = folder / "compare.md"
    text = "\n".join([results_table(systems), *sections])
    markdown.write_text(text, encoding="utf-8")
    write_csv(folder / "compare.csv", systems)
    plot_bars(folder / "compare.png", systems)
    plot_curves(folder / "curves.png", systems)
    interests = folder / "interests.png"
    interests.unlink(missing_ok=True)  # of other systems, compared here before
    if any(has_several_interests(system) for system in systems):
        plot_interests(interests, systems)
    on_message(text)
    return markdown

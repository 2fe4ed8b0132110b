"""The plots of a nightly run's report."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from training.data.event_window import DAY_S
from training.data.readers import read_log
from training.evaluation.metrics import metric_names
from training.nightly.window import WINDOW

SHOWN_METRICS = metric_names("nightly")
# And their colors; recent is the popularity of the last weeks.
MODELS = {"new": "#4878a8", "live": "#d1894b", "popular": "#9a9a9a", "recent": "#c8c8c8"}


def write_plots(folder: Path, steps: dict[str, Any]) -> list[str]:
    """Write the plots that there is data for; returns their file names."""
    names = []
    if "fit" in steps:
        _plot_curves(folder / "curves.png", steps["fit"]["history"])
        names.append("curves.png")
    if "judge" in steps:
        _plot_metrics(folder / "metrics.png", steps["judge"])
        names.append("metrics.png")
    if (folder / WINDOW).exists():
        _plot_days(folder / "days.png", read_log(folder / WINDOW, "parquet").times)
        names.append("days.png")
    return names


def _plot_curves(path: Path, history: list[dict[str, Any]], metric: str = "recall@50") -> None:
    """The loss, and the metric on the validation half of the day's users."""
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    epochs = [record["epoch"] for record in history]
    axes.plot(epochs, [r["validation"][metric] for r in history], marker=".", color="#4878a8")
    axes.set_title("Training, validated on half of the held-out day's users", fontsize="small")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(f"validation {metric}", color="#4878a8")
    losses = [(r["epoch"], r["losses"]["loss"]) for r in history if "losses" in r]
    if losses:
        loss_axes = axes.twinx()
        loss_axes.plot(*zip(*losses, strict=True), marker=".", color="#d1894b")
        loss_axes.set_ylabel("loss", color="#d1894b")
    _save(figure, path)


def _plot_metrics(path: Path, comparison: dict[str, Any]) -> None:
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    models = [name for name in MODELS if comparison.get(name)]
    width = 0.8 / len(models)
    for number, name in enumerate(models):
        positions = np.arange(len(SHOWN_METRICS)) + number * width
        values = [comparison[name][metric] for metric in SHOWN_METRICS]
        axes.bar(positions, values, width, label=name, color=MODELS[name])
    axes.set_title("The held-out day, on the other half of its users", fontsize="small")
    ticks = np.arange(len(SHOWN_METRICS)) + 0.4 - width / 2
    axes.set_xticks(ticks, SHOWN_METRICS, fontsize="small")
    axes.legend(fontsize="small")
    _save(figure, path)


def _plot_days(path: Path, times: NDArray[np.float64], max_days: int = 60) -> None:
    figure, axes = plt.subplots(figsize=(6, 2.4), layout="constrained")
    days = np.minimum(np.floor((times.max() - times) / DAY_S), max_days).astype(int)
    counts = np.bincount(days)[:max_days]
    axes.bar(-np.arange(len(counts)), counts, color="#4878a8")
    axes.set_title("Events in the window", fontsize="small")
    axes.set_xlabel("days before the last event")
    axes.set_ylabel("events")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=100)
    plt.close(figure)

"""A night on one page: report.md for people, report.json for programs, and plots."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from index.release.atomic_io import replace_text
from index.release.reading import read_current
from training.data.event_window import DAY_S
from training.data.readers import read_log
from training.evaluation.champion_challenger import gate_of
from training.nightly.pipeline import WINDOW, Night

_SHOWN = ("recall@10", "recall@20", "recall@50", "ndcg@20", "ndcg@50", "hit@50")
_HEALTH = ("interest_cosine", "interest_entropy", "interest_union", "category_diversity")
_COLOURS = {"new": "#4878a8", "live": "#d1894b", "popular": "#9a9a9a"}


def write_report(night: Night, outcome: dict[str, Any]) -> Path:
    """report.md, report.json and the plots into the night's folder; returns the first.

    Of a night that did not come to its end, what is known. Raises OSError.
    """
    folder, steps = night.steps.folder, night.steps
    told = {
        **outcome,
        "window": night.window,
        "steps": {name: steps.result(name) for name in steps.seconds()},
        "seconds": steps.seconds(),
        "begun": steps.about["started"],
        "catch_up": night.config.recent_data_passes,
        "serves": read_current(night.config.root),
    }
    if steps.done("judge"):
        told["gate"] = asdict(gate_of(night.judgement, night.config))
    replace_text(folder / "report.json", json.dumps(told, indent=2) + "\n")
    plots = _plots(folder, told) if night.config.plots else []
    page = folder / "report.md"
    replace_text(page, _page(told, plots))
    return page


# --- the page ---


def _page(told: dict[str, Any], plots: list[str]) -> str:
    steps = told["steps"]
    sentence = f"{told['sentence']}. Live now: {told['serves'] or 'no release'}."
    parts = [f"# Night {told['night']}: {told['outcome']}", sentence, _window(told)]
    if fit := steps.get("fit"):
        parts += [_training(fit, steps.get("refit"), told["catch_up"]), _drift(fit["drift"])]
    if judged := steps.get("judge"):
        parts.append(_judged(judged, told["live"]))
    if fit := steps.get("fit"):
        parts.append(_health(fit["metrics"]))
    if built := steps.get("build"):
        parts.append(
            f"**Index.** {built['spec']['kind']}: recall@{built['k']} against exact search "
            f"{built['recall']:.4f} over {built['queries']:,} users, "
            f"{built['microseconds']:.0f} µs a request."
        )
    parts.append(_gate(told))
    seconds = ", ".join(f"{name} {each:.1f} s" for name, each in told["seconds"].items())
    parts.append(f"**Time.** Begun {_moment(told['begun'])} UTC; {seconds or 'no step was done'}.")
    parts += [f"![{name.removesuffix('.png')}]({name})" for name in plots]
    return "\n\n".join(part for part in parts if part) + "\n"


def _window(told: dict[str, Any]) -> str:
    window = told["window"]
    counts = [f"{name.replace('_', ' ')} {n:,}" for name, n in window["counts"].items()]
    return (
        f"**Window.** {_moment(window['first'])} to {_moment(window['last'])}: "
        f"{', '.join(counts)}; {window['users']:,} users, {window['items']:,} items. Held out from "
        f"{_moment(window['since'])}: {window['held_out']:,} events, {window['judges']:,} users "
        f"to compare on.{_untried(window['untried'])} Times are UTC."
    )


def _untried(count: int) -> str:
    if not count:
        return ""
    return (
        f" {count:,} events before that are new to the live release: nights that held them out "
        "were refused or did not end."
    )


def _moment(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):  # of another unit, or no time at all
        return f"{seconds:g}"


def _training(fit: dict[str, Any], refit: dict[str, Any] | None, passes: int) -> str:
    begun = "cold"
    if fit["warm"]:
        begun = "warm, encoder and items" if fit["encoder"] else "warm, items alone"
    again = "not refitted"
    if refit is not None and refit["history"] != fit["history"]:
        again = f"then {_epochs(refit)} with the held-out day and {passes} over it alone"
    return (
        f"**Training.** {begun}, K = {fit['interests']}; {fit['interactions']:,} interactions of "
        f"{fit['users']:,} users with {fit['items']:,} items; {_epochs(fit)}; {again}."
    )


def _epochs(run: dict[str, Any]) -> str:
    count = run["history"][-1]["epoch"]
    return f"{count} epoch{'s' if count != 1 else ''}"


def _drift(shares: dict[str, float]) -> str:
    return "**Drift.** " + ", ".join(f"{n.replace('_', ' ')} {s:.1%}" for n, s in shares.items())


def _judged(judged: dict[str, Any], live: str | None) -> str:
    """Of one day, so side by side; ± is a standard error of the difference to live."""
    who = [name for name in _COLOURS if judged[name]]
    lines = [["the held-out day", *who], ["---", *["---:"] * len(who)]]
    for metric in _SHOWN:
        cells = [f"{judged[name][metric]:.4f}" for name in who]
        if judged["errors"]:
            cells[0] += f" ± {judged['errors'][metric]:.4f}"
        lines.append([metric, *cells])
    title = f"**New against live** ({live or 'none'}), {judged['users']:,} users:\n\n"
    return title + "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _health(metrics: dict[str, float]) -> str:
    known = [name for name in _HEALTH if name in metrics]
    return "**Interests.** " + ", ".join(f"{n.replace('_', ' ')} {metrics[n]:.3f}" for n in known)


def _gate(told: dict[str, Any]) -> str:
    said = {"published": "passed", "refused": "refused"}.get(told["outcome"], "not reached")
    if (gate := told.get("gate")) is None:
        return f"**Gate.** {said}."
    return (
        f"**Gate.** {said}. Asked for: {gate['metric']} at most {gate['metric_drop']:.1%} below "
        f"live's, recall of the index at least {gate['ann_recall']}, a catalogue within "
        f"{gate['size_change']:.0%} of live's."
    )


# --- the plots ---


def _plots(folder: Path, told: dict[str, Any]) -> list[str]:
    """Names of those there is something to draw for."""
    steps, drawn = told["steps"], []
    if "fit" in steps:
        _plot_curves(folder / "curves.png", steps["fit"]["history"])
        drawn.append("curves.png")
    if "judge" in steps:
        _plot_metrics(folder / "metrics.png", steps["judge"])
        drawn.append("metrics.png")
    if (folder / WINDOW).exists():
        _plot_days(folder / "days.png", read_log(folder / WINDOW, "parquet").times)
        drawn.append("days.png")
    return drawn


def _plot_curves(path: Path, history: list[dict[str, Any]], metric: str = "recall@50") -> None:
    """The loss, and the metric on the validating half of the day's users."""
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    epochs = [record["epoch"] for record in history]
    axes.plot(epochs, [r["validation"][metric] for r in history], marker=".", color="#4878a8")
    axes.set_title("The fit, on those users of the day who choose the weights", fontsize="small")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(f"validation {metric}", color="#4878a8")
    losses = [(r["epoch"], r["losses"]["loss"]) for r in history if "losses" in r]
    if losses:
        other = axes.twinx()
        other.plot(*zip(*losses, strict=True), marker=".", color="#d1894b")
        other.set_ylabel("loss", color="#d1894b")
    _save(figure, path)


def _plot_metrics(path: Path, judged: dict[str, Any]) -> None:
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    who = [name for name in _COLOURS if judged[name]]
    width = 0.8 / len(who)
    for number, name in enumerate(who):
        places = np.arange(len(_SHOWN)) + number * width
        values = [judged[name][metric] for metric in _SHOWN]
        axes.bar(places, values, width, label=name, color=_COLOURS[name])
    axes.set_title("The held-out day, on its other users", fontsize="small")
    axes.set_xticks(np.arange(len(_SHOWN)) + 0.4 - width / 2, _SHOWN, fontsize="small")
    axes.legend(fontsize="small")
    _save(figure, path)


def _plot_days(path: Path, times: NDArray[np.float64], most: int = 60) -> None:
    figure, axes = plt.subplots(figsize=(6, 2.4), layout="constrained")
    days = np.minimum(np.floor((times.max() - times) / DAY_S), most).astype(int)
    counts = np.bincount(days)[:most]
    axes.bar(-np.arange(len(counts)), counts, color="#4878a8")
    axes.set_title("What was read", fontsize="small")
    axes.set_xlabel("days before the last event")
    axes.set_ylabel("events")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=100)
    plt.close(figure)

"""The report of a nightly run: report.md for people, report.json for programs."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tabulate import tabulate

from index.release.atomic_io import replace_text
from index.release.reading import read_current
from training.evaluation.champion_challenger import day_gate
from training.evaluation.detail import INTEREST_COLUMNS, NO_CATEGORIES, seen_prefix
from training.evaluation.interest_metrics import CATEGORY_DIVERSITY, INTEREST_METRICS
from training.evaluation.metrics import view_names
from training.fitting.content_model import CONTENT_METRICS
from training.fitting.search_report import Trial, table
from training.nightly.pipeline import NightlyPipeline
from training.nightly.plots import MODELS, SHOWN_METRICS, write_plots
from training.nightly.run_warnings import WARNINGS

_INTEREST_METRICS = (*dict.fromkeys([*INTEREST_METRICS, *INTEREST_COLUMNS, CATEGORY_DIVERSITY]),)
_SENTENCE = NO_CATEGORIES[0].upper() + NO_CATEGORIES[1:].replace("--items", "`items`")


def write_report(pipeline: NightlyPipeline, outcome: dict[str, Any]) -> Path:
    """Write report.md, report.json and the plots to the run's folder; returns the first.

    The report of a run that did not complete has the results of its completed steps.
    Raises OSError.
    """
    store = pipeline.store
    report = {
        **outcome,
        "window": pipeline.window,
        "steps": {name: store.result(name) for name in store.seconds()},
        "seconds": store.seconds(),
        "begun": store.metadata["started"],
        "catch_up": pipeline.config.recent_data_passes,
        "serves": read_current(pipeline.config.root),
    }
    if store.is_done("judge"):
        report["gate"] = asdict(day_gate(pipeline.comparison, pipeline.config))
    replace_text(store.folder / "report.json", json.dumps(report, indent=2) + "\n")
    plots = write_plots(store.folder, report["steps"]) if pipeline.config.plots else []
    path = store.folder / "report.md"
    replace_text(path, _markdown(report, plots))
    return path


def _markdown(report: dict[str, Any], plots: list[str]) -> str:
    steps = report["steps"]
    sentence = f"{report['sentence']}. Live now: {report['serves'] or 'no release'}."
    title = f"# Nightly run {report['night']}: {report['outcome']}"
    parts = [title, sentence, _window(report["window"])]
    parts += [f"**Warning.** {sentence}" for sentence in report.get(WARNINGS, ())]
    if fit := steps.get("fit"):
        parts += [_training(fit, steps.get("refit"), report["catch_up"]), _search(fit["search"])]
        parts.append(_drift(fit["drift"]))
    if comparison := steps.get("judge"):
        parts.append(_comparison(comparison, report["live"]))
    if fit := steps.get("fit"):
        parts.append(_interests(fit["metrics"]))
    if (draft := steps.get("draft")) and (content := draft.get(CONTENT_METRICS)):
        parts.append(_content(content))
    if build := steps.get("build"):
        parts.append(_index(build))
    parts.append(_gate(report["outcome"], report.get("gate")))
    parts.append(_durations(report["begun"], report["seconds"]))
    parts += [f"![{name.removesuffix('.png')}]({name})" for name in plots]
    return "\n\n".join(part for part in parts if part) + "\n"


def _window(window: dict[str, Any]) -> str:
    counts = [f"{name.replace('_', ' ')} {n:,}" for name, n in window["counts"].items()]
    return (
        f"**Window.** {_utc(window['first'])} to {_utc(window['last'])}: "
        f"{', '.join(counts)}; {window['users']:,} users, {window['items']:,} items. Held out from "
        f"{_utc(window['since'])}: {window['held_out']:,} events, {window['judges']:,} users "
        f"to compare on.{_unvalidated(window['untried'])} Times are UTC."
    )


def _unvalidated(count: int) -> str:
    if not count:
        return ""
    return (
        f" {count:,} events before that are new to the live release: the runs that held them out "
        "were rejected or did not end."
    )


def _utc(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):  # another unit, or not a time
        return f"{seconds:g}"


def _training(fit: dict[str, Any], refit: dict[str, Any] | None, passes: int) -> str:
    start = "cold"
    if fit["warm"]:
        start = "warm, encoder and items" if fit["encoder"] else "warm, items only"
    refitted = "not refitted"
    if refit is not None and refit["history"] != fit["history"]:
        refitted = f"then {_epochs(refit)} with the held-out day and {passes} over it alone"
    return (
        f"**Training.** {start}, {fit['method']}, K = {fit['interests']}; "
        f"{fit['interactions']:,} interactions of "
        f"{fit['users']:,} users with {fit['items']:,} items; {_epochs(fit)}; {refitted}."
    )


def _search(trials: list[dict[str, Any]]) -> str:
    if not trials:
        return ""
    return f"**Search** for method and K:\n\n{table([Trial(**trial) for trial in trials])}"


def _epochs(run: dict[str, Any]) -> str:
    count = run["history"][-1]["epoch"]
    return f"{count} epoch{'s' if count != 1 else ''}"


def _drift(shares: dict[str, float]) -> str:
    return "**Drift.** " + ", ".join(f"{n.replace('_', ' ')} {s:.1%}" for n, s in shares.items())


def _comparison(comparison: dict[str, Any], live: str | None) -> str:
    """A table of metrics on the held-out day; ± is a standard error of the difference to live."""
    models = [name for name in MODELS if comparison.get(name)]
    rows = []
    for metric in SHOWN_METRICS:
        cells = [f"{comparison[name][metric]:.4f}" for name in models]
        if comparison["errors"]:
            cells[0] += f" ± {comparison['errors'][metric]:.4f}"
        rows.append([metric, *cells])
    table = tabulate(
        rows,
        ["the held-out day", *models],
        tablefmt="pipe",
        colalign=["left", *["right"] * len(models)],
        disable_numparse=True,
    )
    return f"**New against live** ({live or 'none'}), {comparison['users']:,} users:\n\n{table}"


def _content(metrics: dict[str, float]) -> str:
    return (
        f"**Items nobody has taken** get vectors from their words. Of {metrics['items']:,.0f} "
        f"items that these were not fitted to, the mean cosine to the trained vector is "
        f"{metrics['cosine']:.3f}, {metrics['cosine_of_mean']:.3f} with the mean of all items."
    )


def _interests(metrics: dict[str, float]) -> str:
    """Of the users who choose the weights: of each metric also the value with the items of the
    history the other way."""
    parts = []
    for name in _INTEREST_METRICS:
        if name in metrics:
            others = [
                f" ({prefix.strip('/').replace('_', ' ')} {metrics[prefix + name]:.3f})"
                for prefix in map(seen_prefix, (True, False))
                if prefix + name in metrics
            ]
            parts.append(f"{name.replace('_', ' ')} {metrics[name]:.3f}{''.join(others)}")
    known = any(name in metrics for name in view_names("categories"))
    return f"**Interests.** {', '.join(parts)}.{'' if known else f' {_SENTENCE}.'}"


def _index(build: dict[str, Any]) -> str:
    return (
        f"**Index.** {build['spec']['kind']}: recall@{build['k']} against exact search "
        f"{build['recall']:.4f} over {build['queries']:,} users, "
        f"{build['microseconds']:.0f} µs a request."
    )


def _gate(outcome: str, gate: dict[str, Any] | None) -> str:
    result = {"published": "passed", "refused": "rejected"}.get(outcome, "not reached")
    if gate is None:
        return f"**Gate.** {result}."
    return (
        f"**Gate.** {result}. It requires: {gate['metric']} at most {gate['metric_drop']:.1%} "
        f"below live's and {_popularity(gate['popularity_drop'])}, "
        f"{_distinct_share(gate['distinct_share'])}index recall of at least {gate['ann_recall']}, "
        f"a catalog size within {gate['size_change']:.0%} of live's."
    )


def _popularity(drop: float) -> str:
    allowed = f"at most {drop:.1%}" if drop else "not"
    return f"{allowed} below popularity's, of all time and of the last weeks"


def _distinct_share(bound: float | None) -> str:
    return "" if bound is None else f"a distinct share of at least {bound}, "


def _durations(started: float, seconds: dict[str, float]) -> str:
    steps = ", ".join(f"{name} {duration:.1f} s" for name, duration in seconds.items())
    return f"**Time.** Begun {_utc(started)} UTC; {steps or 'no step was completed'}."

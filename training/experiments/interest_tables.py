"""What several interests are for, as Markdown tables: one with seen items as the comparison has
them, one the other way, one by number of categories."""

from collections.abc import Sequence

import numpy as np

from training.evaluation.detail import INTEREST_COLUMNS, NO_CATEGORIES, SEGMENTS, seen_prefix
from training.evaluation.metrics import metric_names
from training.experiments.report import markdown_table
from training.experiments.runner import System

_COLUMNS = ("recall@50", "ndcg@50", *INTEREST_COLUMNS)


def interest_tables(systems: Sequence[System]) -> str:
    """Means over the seeds; empty where a metric is not measured of a system."""
    excluded = bool(systems[0].runs[0].config["exclude_seen"])
    parts = [
        f"Interests, {_words(excluded)}\n\n{_table(systems, _COLUMNS)}",
        f"Interests, {_words(not excluded)}\n\n"
        f"{_table(systems, _COLUMNS, seen_prefix(not excluded))}",
    ]
    by_categories = [f"{name}/{s}" for name in metric_names("segments") for s in SEGMENTS]
    known = [name for name in by_categories if any(_mean(s, name) is not None for s in systems)]
    if known:
        parts.append(f"By categories in the history\n\n{_table(systems, known)}")
    else:
        parts.append(f"{NO_CATEGORIES[0].upper()}{NO_CATEGORIES[1:]}.\n")
    return "\n".join(parts)


def _words(excluded: bool) -> str:
    return f"items of the history {'removed' if excluded else 'kept'}"


def _table(systems: Sequence[System], names: Sequence[str], prefix: str = "") -> str:
    shown = [n for n in names if any(_mean(system, prefix + n) is not None for system in systems)]
    rows = []
    for system in systems:
        means = [_mean(system, prefix + name) for name in shown]
        rows.append([system.name, *("" if mean is None else f"{mean:.4f}" for mean in means)])
    return markdown_table(["system", *shown], rows)


def _mean(system: System, name: str) -> float | None:
    values = [run.test[name] for run in system.runs if name in run.test]
    return float(np.mean(values)) if values else None

"""Test metrics by user segment: by length of the history, and by its number of categories."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from index.retrieval.catalog import Catalog
from training.config import FitConfig
from training.experiments.report import markdown_table
from training.experiments.runner import ExperimentRunner, System

_SEGMENTS = 4
_MIN_USERS = 20  # per segment; a mean over fewer is noise


def segment_table(
    runner: ExperimentRunner, systems: Sequence[System], metric: str = "recall@50"
) -> str:
    """A Markdown table: the mean metric of each system in segments of about equal size."""
    data = runner.prepare(FitConfig.from_stored(systems[0].runs[0].config))
    histories = [case.history for case in data.split.test]
    lengths = np.array([len(history) for history in histories])
    rows = _rows("items in the history", lengths, systems, metric)
    if any(data.catalog.categories):
        categories = _category_counts(data.catalog, histories)
        rows += _rows("categories in it", categories, systems, metric)
    headers = ["test users", "users", *(system.name for system in systems)]
    return f"{metric} by user segment\n\n{markdown_table(headers, rows)}"


def _category_counts(catalog: Catalog, histories: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    return np.array([len({catalog.categories[row - 1] for row in rows}) for rows in histories])


def _rows(
    label: str, counts: NDArray[np.int64], systems: Sequence[System], metric: str
) -> list[list[str]]:
    borders = np.unique(np.quantile(counts, np.linspace(0, 1, _SEGMENTS + 1)).astype(int))
    rows = []
    for low, high in pairwise([*borders[:-1], borders[-1] + 1]):
        segment = (counts >= low) & (counts < high)
        if segment.sum() < _MIN_USERS:
            continue
        means = [system.users(metric)[segment].mean() for system in systems]
        cells = [f"**{m:.4f}**" if m == max(means) else f"{m:.4f}" for m in means]
        span = f"{low}" if high - low == 1 else f"{low} to {high - 1}"
        rows.append([f"{label}: {span}", str(int(segment.sum())), *cells])
    return rows

"""For which kinds of users a system is better: by length of history, and by its categories."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from index.retrieval.catalog import Catalog
from training.config import FitConfig
from training.experiments.runner import ExperimentRunner, System

_PARTS = 4
_LEAST = 20  # users; of fewer a mean says nothing


def kinds(
    laboratory: ExperimentRunner, systems: Sequence[System], metric: str = "recall@50"
) -> str:
    """A Markdown table: test users in parts of about equal size, and each system's mean there."""
    ready = laboratory.prepared(FitConfig.from_stored(systems[0].outcomes[0].config))
    histories = [case.history for case in ready.task.test]
    lengths = np.array([len(history) for history in histories])
    lines = [["test users", "users", *(s.name for s in systems)]]
    lines.append(["---", *["---:"] * (len(systems) + 1)])
    lines += _rows("items in the history", lengths, systems, metric)
    if any(ready.catalog.categories):
        lines += _rows("categories in it", _categories(ready.catalog, histories), systems, metric)
    return (
        f"{metric} by kind of user\n\n"
        + "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        + "\n"
    )


def _categories(catalog: Catalog, histories: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    return np.array([len({catalog.categories[row - 1] for row in each}) for each in histories])


def _rows(
    what: str, counts: NDArray[np.int64], systems: Sequence[System], metric: str
) -> list[list[str]]:
    borders = np.unique(np.quantile(counts, np.linspace(0, 1, _PARTS + 1)).astype(int))
    rows = []
    for least, most in pairwise([*borders[:-1], borders[-1] + 1]):
        of_kind = (counts >= least) & (counts < most)
        if of_kind.sum() < _LEAST:
            continue
        means = [system.users(metric)[of_kind].mean() for system in systems]
        marked = [f"**{m:.4f}**" if m == max(means) else f"{m:.4f}" for m in means]
        span = f"{least}" if most - least == 1 else f"{least} to {most - 1}"
        rows.append([f"{what}: {span}", str(int(of_kind.sum())), *marked])
    return rows

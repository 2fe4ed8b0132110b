"""Reruns of the tables and figures of the Re4 paper on a log, with the paper's settings.

The paper ranks the items of the history too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from sklearn.manifold import TSNE

from training.config import FitConfig
from training.evaluation.interest_clusters import interests_and_items
from training.evaluation.metrics import metric_names
from training.experiments.baselines import BASELINES
from training.experiments.compare import system_config
from training.experiments.paper_sweeps import SWEEPS
from training.experiments.published_results import published_results
from training.experiments.report import markdown_table, plot_curves, results_table
from training.experiments.runner import ExperimentRunner, System

_METRICS = metric_names("paper")


def reproduce(
    runner: ExperimentRunner,
    name: str,
    seeds: int,
    common: dict[str, Any],
    data_set: str | None,
) -> str:
    """Run the sweep and write NAME.md to the runner's folder, with a plot for a figure.

    data_set: `book`, `ml-1m` or `gowalla`, to add the values that the paper prints for it.
    Returns the Markdown.
    """
    systems = []
    common = {"exclude_seen": False} | common
    for label, text in SWEEPS[name].items():
        config = system_config(text, common, "paper")
        if text in BASELINES:
            options = BASELINES[text].options_of({})
            systems.append(runner.run_baseline(label, text, config, [options]))
        else:
            systems.append(runner.run_seeds(label, config, seeds))
    markdown = results_table(systems, _METRICS)
    if name == "re4-table7":
        markdown += "\n" + _cluster_table(systems)
    if name == "re4-fig3":
        plot_curves(runner.folder / f"{name}.png", systems)
    if name == "re4-fig4":
        _plot_users(runner, systems, runner.folder / f"{name}.png")
    if data_set is not None:
        markdown += "\n" + _published_table(name, data_set)
    (runner.folder / f"{name}.md").write_text(markdown, encoding="utf-8")
    return markdown


def _published_table(name: str, data_set: str) -> str:
    published = published_results(name, data_set)
    if published is None:
        return f"The paper prints no {name} for {data_set}.\n"
    rows = [
        [label, *(f"{values[m]:.4f}" if m in values else "" for m in _METRICS)]
        for label, values in published.items()
    ]
    return markdown_table(["printed in the paper", *_METRICS], rows)


def _cluster_table(systems: Sequence[System]) -> str:
    rows = []
    for system in systems:
        inter, intra = (system.values(name).mean() for name in ("inter_user", "intra_user"))
        rows.append([system.name, f"{inter:.2f}", f"{intra:.2f}"])
    return markdown_table(["system", "INTER", "INTRA"], rows)


def _plot_users(
    runner: ExperimentRunner, systems: Sequence[System], path: Path, users: int = 6
) -> None:
    """Figure 4: t-SNE of the interests (stars) and items (dots) of some test users."""
    figure, panels = plt.subplots(1, len(systems), figsize=(6 * len(systems), 5))
    for axes, system in zip(panels, systems, strict=True):
        config = FitConfig.from_stored(system.runs[0].config)
        cases = runner.prepare(config).split.test
        interests, items = interests_and_items(runner.retriever(config), cases, users)
        count = interests.shape[1]
        points = np.concatenate([interests.reshape(-1, interests.shape[2]), *items])
        flat = TSNE(perplexity=min(10, len(points) - 1), random_state=0).fit_transform(points)
        start = len(interests) * count  # the items follow all interests
        for user, vectors in enumerate(items):
            color = f"C{user}"
            axes.scatter(*flat[start : start + len(vectors)].T, color=color, s=18)
            axes.scatter(*flat[user * count : (user + 1) * count].T, color=color, marker="*", s=160)
            start += len(vectors)
        axes.set_title(system.name)
    figure.savefig(path, dpi=110)
    plt.close(figure)

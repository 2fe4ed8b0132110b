"""The tables and figures of the Re4 paper, rerun on a log with the paper's own settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from sklearn.manifold import TSNE

from training.config import FitConfig
from training.evaluation.interest_clusters import represent
from training.experiments.compare import system_config
from training.experiments.paper_sweeps import SWEEPS
from training.experiments.published_results import PRINTED
from training.experiments.report import plot_curves, table
from training.experiments.runner import ExperimentRunner, System

_METRICS = (
    "recall@20",
    "recall@50",
    "ndcg_gt_order@20",
    "ndcg_gt_order@50",
    "hit@20",
    "hit@50",
)


def reproduce(
    laboratory: ExperimentRunner,
    name: str,
    seeds: int,
    common: dict[str, Any],
    data_set: str | None,
) -> str:
    """Run the sweep and write NAME.md, with a plot where the paper has one, to the laboratory's
    folder. data_set: `book`, `ml-1m` or `gowalla`, to have the printed values beside ours.

    Returns the Markdown.
    """
    systems = []
    for label, text in SWEEPS[name].items():
        config = system_config(text, common, "paper")
        if text == "pop":
            systems.append(System(label, [laboratory.popularity(config)]))
        else:
            systems.append(laboratory.system(label, config, seeds))
    told = table(systems, _METRICS)
    if name == "re4-table7":
        told += "\n" + _clusters(systems)
    if name == "re4-fig3":
        plot_curves(laboratory.folder / f"{name}.png", systems)
    if name == "re4-fig4":
        _plot_users(laboratory, systems, laboratory.folder / f"{name}.png")
    if data_set is not None:
        told += "\n" + _printed(name, data_set)
    (laboratory.folder / f"{name}.md").write_text(told, encoding="utf-8")
    return told


def _printed(name: str, data_set: str) -> str:
    rows = PRINTED.get(name, {}).get(data_set)
    if rows is None:
        return f"The paper prints no {name} for {data_set}.\n"
    lines = [["printed in the paper", *_METRICS], ["---", *["---:"] * len(_METRICS)]]
    lines += [
        [label, *(f"{values[m]:.4f}" if m in values else "" for m in _METRICS)]
        for label, values in rows.items()
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _clusters(systems: Sequence[System]) -> str:
    lines = ["| system | INTER | INTRA |", "|---|---:|---:|"]
    for system in systems:
        inter, intra = (system.values(name).mean() for name in ("inter_user", "intra_user"))
        lines.append(f"| {system.name} | {inter:.2f} | {intra:.2f} |")
    return "\n".join(lines) + "\n"


def _plot_users(
    laboratory: ExperimentRunner, systems: Sequence[System], path: Path, users: int = 6
) -> None:
    """Figure 4: t-SNE of the interests (stars) and items (dots) of some test users."""
    figure, panels = plt.subplots(1, len(systems), figsize=(6 * len(systems), 5))
    for axes, system in zip(panels, systems, strict=True):
        config = FitConfig.from_stored(system.outcomes[0].config)
        cases = laboratory.prepared(config).task.test
        interests, items = represent(laboratory.retriever(config), cases, users)
        count = interests.shape[1]
        points = np.concatenate([interests.reshape(-1, interests.shape[2]), *items])
        flat = TSNE(perplexity=min(10, len(points) - 1), random_state=0).fit_transform(points)
        place = len(interests) * count
        for user, vectors in enumerate(items):
            colour = f"C{user}"
            axes.scatter(*flat[place : place + len(vectors)].T, color=colour, s=18)
            axes.scatter(
                *flat[user * count : (user + 1) * count].T, color=colour, marker="*", s=160
            )
            place += len(vectors)
        axes.set_title(system.name)
    figure.savefig(path, dpi=110)
    plt.close(figure)

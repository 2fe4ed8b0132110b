"""The tables and figures of the Re4 paper, rerun on a log with the paper's own settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE

from training.compare import system_config
from training.config import FitConfig
from training.experiments import Laboratory, System
from training.printed import PRINTED
from training.report import plot_curves, table
from training.sweeps import SWEEPS

_METRICS = (
    "recall@20",
    "recall@50",
    "ndcg_gt_order@20",
    "ndcg_gt_order@50",
    "hit@20",
    "hit@50",
)


def reproduce(
    laboratory: Laboratory, name: str, seeds: int, common: dict[str, Any], data_set: str | None
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
        told += "\n" + _clusters(laboratory, systems)
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


# --- Table 7 and Figure 4: where interests and items lie ---


def inter_user(
    interests: NDArray[np.float32], items: list[NDArray[np.float32]], seed: int = 0
) -> float:
    """INTER: the share of users' items that lie in the cluster of their interest.

    interests (U, K, D); items: for each user (n, D), each item's interest being the one that scores
    it best. All are clustered together by k-means with a cluster a user. Percent.
    """
    users, count, dim = interests.shape
    points = np.concatenate([interests.reshape(-1, dim), *items])
    labels = KMeans(users, init="k-means++", n_init=1, random_state=seed).fit_predict(points)
    of_interest = labels[: users * count].reshape(users, count)
    place, same, total = users * count, 0, 0
    for user, vectors in enumerate(items):
        nearest = (vectors @ interests[user].T).argmax(axis=1)
        same += int((labels[place : place + len(vectors)] == of_interest[user][nearest]).sum())
        total += len(vectors)
        place += len(vectors)
    return 100 * same / total


def intra_user(
    interests: NDArray[np.float32], items: list[NDArray[np.float32]], seed: int = 0
) -> float:
    """INTRA: of a user's K interests clustered with his items into K, the share of clusters that
    hold an interest, in percent; 100 where all interests are apart."""
    count = interests.shape[1]
    shares = []
    for own, vectors in zip(interests, items, strict=True):
        points = np.concatenate([own, vectors])
        labels = KMeans(count, init="k-means++", n_init=1, random_state=seed).fit_predict(points)
        shares.append(len(set(labels[:count])) / count)
    return 100 * float(np.mean(shares))


def _clusters(laboratory: Laboratory, systems: Sequence[System], users: int = 200) -> str:
    lines = ["| system | INTER | INTRA |", "|---|---:|---:|"]
    for system in systems:
        interests, items = _represent(laboratory, system, users)
        inter, intra = inter_user(interests, items), intra_user(interests, items)
        lines.append(f"| {system.name} | {inter:.2f} | {intra:.2f} |")
    return "\n".join(lines) + "\n"


def _represent(
    laboratory: Laboratory, system: System, users: int
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Interests (users, K, D) of test users with at least K held-out or shown items, and these."""
    config = FitConfig.model_validate(system.outcomes[0].config)
    retriever = laboratory.retriever(config)
    cases = [
        case
        for case in laboratory.prepared(config).task.test
        if len({*case.history, *case.relevant}) >= config.interests
    ][:users]
    interests = retriever.encode([case.history for case in cases])
    items = [retriever.vectors[[*{*case.history, *case.relevant}]] for case in cases]
    return interests, items


def _plot_users(
    laboratory: Laboratory, systems: Sequence[System], path: Path, users: int = 6
) -> None:
    """Figure 4: t-SNE of the interests (stars) and items (dots) of some test users."""
    figure, panels = plt.subplots(1, len(systems), figsize=(6 * len(systems), 5))
    for axes, system in zip(panels, systems, strict=True):
        interests, items = _represent(laboratory, system, users)
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

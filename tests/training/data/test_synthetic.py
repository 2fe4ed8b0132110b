"""The synthetic log: its interests can be learnt, and the control has none."""

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from index.retrieval.catalog import Catalog
from training.data.item_metadata import read_items
from training.data.packed_log import PackedLog, prepare
from training.data.readers import read_log
from training.data.splits import hold_out, split_users
from training.data.synthetic import write_synthetic

Scorer = Callable[[NDArray[np.int32]], NDArray[np.float64]]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of the planted log and of its control."""
    folder = tmp_path_factory.mktemp("synthetic")
    write_synthetic(folder / "planted")
    write_synthetic(folder / "control", control=True)
    return folder / "planted", folder / "control"


def histories(folder: Path) -> dict[str, list[str]]:
    table = pq.read_table(folder / "interactions.parquet")
    by_user = defaultdict(list)
    for user, item in zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True):
        by_user[user].append(item)
    return by_user


def test_the_log_is_as_described(logs: tuple[Path, Path]) -> None:
    planted, _ = logs
    table = pq.read_table(planted / "interactions.parquet")
    times = table["timestamp"].to_numpy()
    assert len(histories(planted)) == 2000
    assert 18_000 < len(table) < 22_000
    assert np.all(np.diff(times) >= 0)
    assert 100 * 86_400 < times[-1] - times[0] < 130 * 86_400
    items = read_items(planted / "items.parquet")
    assert len(items) == 1000
    assert len({item.title for item in items.values()}) == 1000
    assert 20 <= len({item.category for item in items.values()}) <= 40
    assert set(table["item_id"].to_pylist()) <= set(items)


def test_the_categories_of_a_history_are_the_planted_interests(logs: tuple[Path, Path]) -> None:
    planted, control = logs
    items = read_items(planted / "items.parquet")
    mixed = 0
    for history in histories(planted).values():
        categories = [items[item].category for item in history]
        assert 2 <= len(set(categories)) <= 4
        assert min(Counter(categories).values()) >= 2
        assert len(set(history)) == len(history)
        changes = sum(a != b for a, b in pairwise(categories))
        mixed += changes >= len(set(categories))
    assert mixed > 0.8 * 2000
    category_counts = [len({items[i].category for i in h}) for h in histories(control).values()]
    assert np.mean(category_counts) > 6


def test_the_control_has_the_same_users_lengths_times_and_popularity(
    logs: tuple[Path, Path],
) -> None:
    planted, control = (pq.read_table(folder / "interactions.parquet") for folder in logs)
    assert planted["user_id"].equals(control["user_id"])
    assert planted["timestamp"].equals(control["timestamp"])
    assert not planted["item_id"].equals(control["item_id"])
    assert Counter(planted["item_id"].to_pylist()) == Counter(control["item_id"].to_pylist())


def recall(log: PackedLog, users: NDArray[np.int64], scorer: Scorer, k: int) -> float:
    cases = hold_out(log, users)
    shares = []
    for start, cut, end in zip(cases.starts, cases.cuts, cases.ends, strict=True):
        best = np.argsort(-scorer(log.rows[start:cut]), kind="stable")[:k]
        shares.append(np.isin(log.rows[cut:end], best).mean())
    return float(np.mean(shares))


def scorers(catalog: Catalog, log: PackedLog, train: NDArray[np.int64]) -> dict[str, Scorer]:
    """From the rows of a history to scores by row: popularity, popularity in the categories of the
    history, and co-occurrence with the items of the history."""
    user_items = np.zeros((len(log), len(catalog) + 1))
    user_items[np.repeat(np.arange(len(log)), np.diff(log.offsets)), log.rows] = 1
    cooccurrence = user_items[train].T @ user_items[train]
    np.fill_diagonal(cooccurrence, 0)
    popularity = np.concatenate([[0.0], catalog.popularity])
    category = np.array([None, *catalog.categories])
    return {
        "popular": lambda history: popularity,
        "category": lambda history: popularity * np.isin(category, category[history]),
        "cooccurrence": lambda history: (cooccurrence[history] / np.sqrt(popularity + 1)).sum(
            axis=0
        ),
    }


def recalls(folder: Path) -> dict[str, float]:
    items = read_items(folder / "items.parquet")
    catalog, log = prepare(read_log(folder / "interactions.parquet"), items=items)
    split = split_users(log.user_ids)
    by_name = scorers(catalog, log, split.train)
    return {name: recall(log, split.test, scorer, k=20) for name, scorer in by_name.items()}


def test_better_scorers_have_higher_recall_except_in_the_control(logs: tuple[Path, Path]) -> None:
    planted, control = map(recalls, logs)
    assert planted["category"] > 4 * planted["popular"]
    assert planted["cooccurrence"] > 1.5 * planted["category"]
    assert planted["cooccurrence"] > 0.5
    assert max(control.values()) < 1.2 * control["popular"] < 0.1


def test_the_log_depends_on_the_seed(tmp_path: Path) -> None:
    for name, seed in ("first", 5), ("same", 5), ("other", 6):
        write_synthetic(tmp_path / name, users=50, items=60, seed=seed)
    for file in "interactions.parquet", "items.parquet":
        first, same, other = (
            pq.read_table(tmp_path / n / file) for n in ("first", "same", "other")
        )
        assert first.equals(same)
        assert not first.equals(other)


def test_a_small_log_can_be_read_and_no_other_file_is_left(tmp_path: Path) -> None:
    write_synthetic(tmp_path, users=10, items=50)
    assert len(read_log(tmp_path / "interactions.parquet").user_ids) == 10
    assert {path.name for path in tmp_path.iterdir()} == {"interactions.parquet", "items.parquet"}

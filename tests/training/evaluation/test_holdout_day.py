"""The held-out day: how it is split, and how two releases are compared on it."""

import numpy as np
import pytest
import torch

from index.encoders import Encoder, History, Interests
from index.retrieval.catalog import Catalog
from index.retrieval.retriever import Retriever
from training.data.interactions import Interactions
from training.data.packed_log import prepare
from training.evaluation.champion_challenger import compare_releases
from training.evaluation.drift import drift
from training.evaluation.evaluate import exact_retriever
from training.evaluation.holdout_day import day_cases, split_day

SINCE = 10.0


class Newest(Encoder):
    """The one interest is the vector of the newest item."""

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.interests = 4, 1

    def forward(self, history: History) -> Interests:
        newest = history.vectors[:, -1:, :]
        return Interests(newest, torch.ones(len(newest), 1, history.rows.shape[1]), newest)


def log_of(histories: dict[str, list[tuple[str, float]]]) -> Interactions:
    rows = [(user, item, time) for user, items in histories.items() for item, time in items]
    users, items = sorted({row[0] for row in rows}), sorted({row[1] for row in rows})
    return Interactions.from_rows(
        np.array([users.index(row[0]) for row in rows], np.int32),
        np.array([items.index(row[1]) for row in rows], np.int32),
        np.array([row[2] for row in rows]),
        np.array(users, object),
        np.array(items, object),
    )


@pytest.fixture
def log() -> Interactions:
    known = {f"known-{n}": [("a", 1.0), ("b", 2.0), ("c", SINCE), ("d", 11.0)] for n in range(20)}
    new = {f"new-{n}": [("a", 11.0), ("b", 12.0), ("e", 13.0)] for n in range(20)}
    inactive = {f"inactive-{n}": [("a", 1.0), ("b", 2.0)] for n in range(5)}
    single = {f"single-{n}": [("a", 12.0)] for n in range(5)}
    return log_of(known | new | inactive | single)


def test_the_day_is_not_trained_on(log):
    _, packed = prepare(log, 1, 1)
    task = split_day(packed, SINCE)
    assert (task.train.times < SINCE).all()
    assert len(task.train.rows) == 2 * 25


def test_half_of_the_users_validate_and_the_other_half_test(log):
    catalog, packed = prepare(log, 1, 1)
    task = split_day(packed, SINCE)
    assert len(task.validation) + len(task.test) == 40
    cases = day_cases(log, SINCE)
    assert len(cases) == len(task.test)
    assert 5 < len(cases) < 35
    assert len(day_cases(log, SINCE, all_users=True)) == 40
    histories = sorted(tuple(catalog.id(row) for row in case.history) for case in task.test)
    assert sorted(tuple(case.history) for case in cases) == histories


def test_the_history_is_all_before_the_day_or_half_of_it_for_a_new_user(log):
    cases = {tuple(case.history): case.relevant for case in day_cases(log, SINCE)}
    index = {item: number for number, item in enumerate(log.item_ids)}
    assert cases == {("a", "b"): [index["c"], index["d"]], ("a",): [index["b"], index["e"]]}


def retriever(ids: list[str], pairs: dict[str, str]) -> Retriever:
    """A retriever whose best item for an item of `pairs` is its partner."""
    catalog = Catalog(ids, np.arange(len(ids), 0, -1), [None] * len(ids), [None] * len(ids))
    vectors = np.zeros((len(ids) + 1, 4), dtype=np.float32)
    for column, (item, partner) in enumerate(pairs.items()):
        vectors[catalog.rows([item])[0], column] = 1
        vectors[catalog.rows([partner])[0], column] = 2
    return exact_retriever(catalog, Newest(), vectors, 5)


def test_releases_with_different_catalogues_are_compared_on_the_same_cases(log):
    new = retriever(["a", "b", "c", "d", "e"], {"b": "c", "a": "e"})
    live = retriever(["z", "b", "d"], {"b": "d"})  # lacks a, c and e; z is not in the log
    cases = day_cases(log, SINCE)
    comparison = compare_releases(log, SINCE, cases, new, live)
    known = sum(case.history == ["a", "b"] for case in cases)
    assert comparison.live is not None
    assert comparison.users == len(cases)
    # Of c and d, live has only d; for a it has popular items: b, but not e.
    assert comparison.live["recall@50"] == pytest.approx(0.5)
    assert comparison.live["hit@5"] == 1
    assert comparison.new["recall@50"] == 1
    second = 1 / np.log2(3)
    gains = known * 1 + (len(cases) - known) * second  # d is first; b is second, after z
    assert comparison.live["ndcg@5"] == pytest.approx(gains / len(cases) / (1 + second))
    assert comparison.errors is not None
    assert comparison.errors["recall@50"] == 0  # the difference is the same for all users


def test_drift_is_in_shares():
    log = log_of({"u": [("a", 1.0), ("b", 11.0)], "v": [("a", 12.0), ("c", 12.0)]})
    new, _ = prepare(log, 1, 1)
    live = Catalog(["a", "x", "y"], np.array([3, 2, 1]), [None] * 3, [None] * 3)
    assert drift(log, SINCE, new, live) == pytest.approx(
        {
            "new_users": 1 / 2,
            "new_items": 2 / 3,
            "gone_items": 2 / 3,
            "unknown_interactions": 2 / 3,
        }
    )
    assert drift(log, SINCE, new, None).keys() == {"new_users"}

"""The held-out day: what is trained on, who is asked what, and how two releases are compared."""

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
    rows = [(user, item, time) for user, taken in histories.items() for item, time in taken]
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
    gone = {f"gone-{n}": [("a", 1.0), ("b", 2.0)] for n in range(5)}
    once = {f"once-{n}": [("a", 12.0)] for n in range(5)}
    return log_of(known | new | gone | once)


def test_nothing_of_the_day_is_trained_on(log):
    _, packed = prepare(log, 1, 1)
    task = split_day(packed, SINCE)
    assert (task.train.times < SINCE).all()
    assert len(task.train.rows) == 2 * 25


def test_half_of_the_users_choose_and_the_other_half_judge(log):
    catalog, packed = prepare(log, 1, 1)
    task = split_day(packed, SINCE)
    assert len(task.validation) + len(task.test) == 40
    judges = day_cases(log, SINCE)
    assert len(judges) == len(task.test)
    assert 5 < len(judges) < 35
    assert len(day_cases(log, SINCE, everybody=True)) == 40
    shown = sorted(tuple(catalog.id(row) for row in case.history) for case in task.test)
    assert sorted(tuple(case.history) for case in judges) == shown


def test_a_known_user_shows_what_came_before_and_a_new_one_half(log):
    cases = {tuple(case.history): case.relevant for case in day_cases(log, SINCE)}
    place = {item: number for number, item in enumerate(log.item_ids)}
    assert cases == {("a", "b"): [place["c"], place["d"]], ("a",): [place["b"], place["e"]]}


def retriever(ids: list[str], pairs: dict[str, str]) -> Retriever:
    """Whose first answer to an item is its partner."""
    catalog = Catalog(ids, np.arange(len(ids), 0, -1), [None] * len(ids), [None] * len(ids))
    vectors = np.zeros((len(ids) + 1, 4), dtype=np.float32)
    for column, (item, partner) in enumerate(pairs.items()):
        vectors[catalog.rows([item])[0], column] = 1
        vectors[catalog.rows([partner])[0], column] = 2
    return exact_retriever(catalog, Newest(), vectors, 5)


def test_releases_of_different_catalogues_are_asked_the_same(log):
    new = retriever(["a", "b", "c", "d", "e"], {"b": "c", "a": "e"})
    live = retriever(["z", "b", "d"], {"b": "d"})  # knows neither a, c nor e, and z, which is gone
    cases = day_cases(log, SINCE)
    judged = compare_releases(log, SINCE, cases, new, live)
    known = sum(case.history == ["a", "b"] for case in cases)
    assert judged.live is not None
    assert judged.users == len(cases)
    # Of c and d, live has d alone; to a it has popular items, among which is b, not e.
    assert judged.live["recall@50"] == pytest.approx(0.5)
    assert judged.live["hit@5"] == 1
    assert judged.new["recall@50"] == 1
    second = 1 / np.log2(3)
    gains = known * 1 + (len(cases) - known) * second  # d first; b second to z
    assert judged.live["ndcg@5"] == pytest.approx(gains / len(cases) / (1 + second))
    assert judged.errors is not None
    assert judged.errors["recall@50"] == 0  # everybody differs by as much


def test_drift_is_shares_of_what_is_there():
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

"""EASE and item-based neighbours against slow references."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data.packed_log import PackedLog
from training.evaluation.protocols import EvaluationCase
from training.evaluation.rankings import rank_by_scores
from training.experiments.item_similarity import ease, item_knn
from training.models.item_weights import interaction_matrix

ITEMS = 30


def log_of(histories: Sequence[Sequence[int]]) -> PackedLog:
    offsets = np.cumsum([0, *map(len, histories)])
    rows = np.concatenate([np.array(history, np.int32) for history in histories])
    users = np.array([f"u{user}" for user in range(len(histories))], object)
    return PackedLog(rows, offsets, np.arange(len(rows), dtype=float), users)


@pytest.fixture(scope="module")
def log() -> PackedLog:
    """40 users, some of whom take an item twice; the last item is taken by nobody."""
    random = np.random.default_rng(0)
    return log_of([random.integers(1, ITEMS, random.integers(2, 12)) for _ in range(40)])


def taken_by(log: PackedLog) -> NDArray[np.float64]:
    """(users, items)."""
    taken = np.zeros((len(log), ITEMS))
    for user in range(len(log)):
        for row in log.rows[log.offsets[user] : log.offsets[user + 1]]:
            taken[user, row - 1] = 1
    return taken


HISTORIES = [[3, 7, 7, 1], [12], [5, 4, 3, 2, 1, 9]]


def test_a_user_counts_once_for_an_item(log):
    assert interaction_matrix(log, ITEMS).toarray().tolist() == taken_by(log).tolist()


def test_ease_is_the_least_squares_fit_without_self_similarity(log):
    """Each column of B minimises |x_j - X b|^2 + l2 |b|^2 subject to b_j = 0: solved one by one."""
    taken, l2 = taken_by(log), 3.0
    weights = np.zeros((ITEMS, ITEMS))
    for item in range(ITEMS):
        others = np.delete(np.arange(ITEMS), item)
        x = taken[:, others]
        weights[others, item] = np.linalg.solve(
            x.T @ x + l2 * np.eye(ITEMS - 1), x.T @ taken[:, item]
        )
    expected = [sum(weights[row - 1] for row in {*history}) for history in HISTORIES]
    scores = ease(log, ITEMS, l2, max_items=ITEMS)(HISTORIES)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_ease_leaves_out_what_is_beyond_its_bound(log):
    scores = ease(log, ITEMS, 3.0, max_items=5)([[3, 20], [20]])
    assert np.isneginf(scores[:, 5:]).all()
    np.testing.assert_allclose(scores[1, :5], 0)  # the history has no item that it knows
    np.testing.assert_allclose(scores[0, :5], ease(log, ITEMS, 3.0, 5)([[3]])[0, :5], atol=1e-6)


def test_too_little_regularisation_is_told(log):
    with pytest.raises(ArithmeticError, match=r"l2 of -100 leaves .* singular; give more"):
        ease(log, ITEMS, -100.0, max_items=ITEMS)


@pytest.mark.parametrize(("neighbours", "shrinkage", "decay"), [(4, 0.0, 0.8), (40, 5.0, 1.0)])
def test_neighbours_add_their_similarities(log, neighbours, shrinkage, decay):
    taken = taken_by(log)
    similar = np.zeros((ITEMS, ITEMS))
    for a, b in product(range(ITEMS), repeat=2):
        both = sum(taken[user, a] * taken[user, b] for user in range(len(log)))
        norm = (taken[:, a].sum() + shrinkage) * (taken[:, b].sum() + shrinkage)
        similar[a, b] = both / norm**0.5 if a != b and both else 0
    for a in range(ITEMS):
        order = sorted(range(ITEMS), key=lambda b: (-round(similar[a, b], 6), b))
        similar[a, order[neighbours:]] = 0
    expected = [
        sum(
            decay ** (len(history) - 1 - position) * similar[row - 1]
            for position, row in enumerate(history)
        )
        for history in HISTORIES
    ]
    scores = item_knn(log, ITEMS, neighbours, shrinkage, decay)(HISTORIES)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_blocks_do_not_change_the_neighbours(log, monkeypatch):
    whole = item_knn(log, ITEMS, 5, 0.0, 0.8)(HISTORIES)
    monkeypatch.setattr("training.experiments.item_similarity._BLOCK", 7)
    np.testing.assert_array_equal(item_knn(log, ITEMS, 5, 0.0, 0.8)(HISTORIES), whole)


def test_cases_are_ranked_by_score_then_popularity():
    scores = np.array([[0.5, 0.0, 2.0, 0.0, 0.5]], np.float32)
    popular = [5, 4, 3, 1]  # row 2 is in no training history

    def ranked(case: EvaluationCase, exclude_seen: bool = True) -> list[int]:
        [rows] = rank_by_scores(lambda histories: scores, popular, [case], exclude_seen)
        return rows

    assert ranked(EvaluationCase([3], [1])) == [5, 1, 4]
    assert ranked(EvaluationCase([3], [1]), exclude_seen=False) == [3, 5, 1, 4]
    # The held-out item, the first candidate, is the last of a tie.
    assert ranked(EvaluationCase([3], [1], candidates=[1, 5, 3, 2])) == [5, 1, 2]

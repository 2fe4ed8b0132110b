"""The linear model in closed form, beside slow references."""

import numpy as np
import pytest
import torch

from index.encoders import History
from index.encoders.linear import LinearEncoder
from training.config import ConfigError, FitConfig, read_config
from training.data.packed_log import PackedLog
from training.models.closed_form import solve
from training.models.item_weights import interaction_matrix
from training.models.model import Model

ITEMS, USERS = 12, 400


@pytest.fixture(scope="module")
def log() -> PackedLog:
    """Users who keep to one third of the items, mostly."""
    random = np.random.default_rng(0)
    groups = random.integers(0, 3, USERS).tolist()
    histories = [
        [1 + (3 * random.integers(0, 4) + (g if random.random() < 0.8 else 0)) for _ in range(6)]
        for g in groups
    ]
    offsets = np.arange(USERS + 1) * 6
    rows = np.concatenate(histories).astype(np.int32)
    users = np.array([f"u{n}" for n in range(USERS)], dtype=object)
    return PackedLog(rows, offsets, np.arange(len(rows), dtype=np.float64), users)


def solved(log: PackedLog, **settings: object) -> tuple[Model, FitConfig]:
    config = read_config(
        None, {"encoder": "linear", "ease_l2": 5.0, "history_decay": 1.0, **settings}
    )
    model = Model(config, torch.from_numpy(np.bincount(log.rows, minlength=ITEMS + 1)))
    solve(model, config, log)
    return model.eval(), config


def scores(model: Model, rows: list[int]) -> np.ndarray:
    """(N,): of one history."""
    vectors = torch.from_numpy(model.vectors())
    given = torch.tensor([rows])
    interests = model.encoder(History(given, vectors[given], given > 0))
    return (interests.vectors[0, 0] @ vectors[1:].T).detach().numpy()


def reference(log: PackedLog, l2: float) -> np.ndarray:
    """B of EASE, from its equation."""
    taken = interaction_matrix(log, ITEMS).toarray().astype(np.float64)
    inverse = np.linalg.inv(taken.T @ taken + l2 * np.eye(ITEMS))
    weights = np.eye(ITEMS) - inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def test_with_as_many_dimensions_as_items_it_is_ease(log: PackedLog) -> None:
    model, _ = solved(log, dim=ITEMS)
    for rows in ([1, 4, 8], [2], [12, 3, 5, 6]):
        shown = np.zeros(ITEMS)
        shown[np.array(rows) - 1] = 1
        expected = shown @ reference(log, 5.0)
        np.testing.assert_allclose(scores(model, rows), expected, atol=2e-3)


def test_with_fewer_it_is_the_best_approximation_of_the_users_scores(log: PackedLog) -> None:
    dim = 4
    model, _ = solved(log, dim=dim)
    taken = interaction_matrix(log, ITEMS).toarray()
    wanted = taken @ reference(log, 5.0)
    left, singular, right = np.linalg.svd(wanted, full_matrices=False)
    best = np.linalg.norm(wanted - (left[:, :dim] * singular[:dim]) @ right[:dim])
    vectors = model.vectors()[1:]
    projected = wanted @ vectors @ np.linalg.pinv(vectors)
    assert np.linalg.norm(wanted - projected) == pytest.approx(best, rel=1e-3)
    given = np.stack([scores(model, [*(np.flatnonzero(user) + 1)]) for user in taken[:50]])
    assert np.corrcoef(given.ravel(), wanted[:50].ravel())[0, 1] > 0.95


def test_rarer_items_are_near_those_that_are_taken_with_them(log: PackedLog) -> None:
    """Rows 10 to 12 are not solved for; each is of the group of the row modulo 3."""
    model, _ = solved(log, dim=6, ease_items=9)
    vectors = model.vectors()
    for row in (10, 11, 12):
        cosines = vectors[1:10] @ vectors[row] / np.linalg.norm(vectors[1:10], axis=1)
        assert (1 + int(cosines.argmax())) % 3 == row % 3
    shown = [2, 5, 8]
    assert scores(model, shown)[10] > scores(model, shown)[9] - 0.05


def test_more_dimensions_than_items_or_users_leave_zeros(log: PackedLog) -> None:
    model, _ = solved(log, dim=20)
    assert np.isfinite(model.vectors()).all()
    assert not model.vectors()[:, ITEMS:].any()
    assert scores(model, [1, 2]).any()


def test_the_newest_items_count_most_with_a_decay(log: PackedLog) -> None:
    model, _ = solved(log, dim=ITEMS, history_decay=0.5)
    plain, _ = solved(log, dim=ITEMS)
    mixed = scores(plain, [1]) * 0.5 + scores(plain, [2])
    np.testing.assert_allclose(scores(model, [1, 2]), mixed, atol=1e-5)


def test_the_clusters_of_several_interests_are_the_groups_of_items(log: PackedLog) -> None:
    model, _ = solved(log, dim=4, interests=3)
    assert isinstance(model.encoder, LinearEncoder)
    clusters = model.encoder.clusters(torch.from_numpy(model.vectors()[1:])).tolist()
    groups = [{clusters[row] for row in range(group, ITEMS, 3)} for group in range(3)]
    assert [len(group) for group in groups] == [1, 1, 1]
    assert len(set.union(*groups)) == 3


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"score_temperature": 0.1}, "score_temperature = 0.1: linear is computed in closed form"),
        ({"item_bias": True}, "item_bias = True"),
        ({"reattend": 0.1}, "reattend = 0.1"),
        ({"objective": "softmax"}, "objective = 'softmax'"),
    ],
)
def test_settings_of_a_trained_model_are_refused(setting: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_config(None, {"encoder": "linear", **setting})

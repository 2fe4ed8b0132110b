"""Item vectors from what is taken together: a slow reference, and what a fit makes of them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from training.config import ConfigError, FitConfig, read_config
from training.data.packed_log import PackedLog
from training.fitting.fit import prepare_log
from training.fitting.trainer import Trainer
from training.models.cooccurrence import (
    cooccurrence_vectors,
    initial_vectors,
    pair_counts,
    positive_pmi,
)
from training.models.model import Model

ITEMS, DIM = 12, 6


def log_of(histories: list[list[int]]) -> PackedLog:
    rows = np.array([row for history in histories for row in history], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])])
    users = np.array([str(user) for user in range(len(histories))], dtype=object)
    return PackedLog(rows, offsets, np.arange(len(rows), dtype=np.float64), users)


@pytest.fixture
def log() -> PackedLog:
    """Histories of 2 to 30 of the items, with repeats: longer than the window and shorter."""
    random = np.random.default_rng(3)
    return log_of(
        [random.integers(1, ITEMS + 1, random.integers(2, 31)).tolist() for _ in range(40)]
    )


def slow_counts(histories: list[list[int]], size: int) -> np.ndarray:
    counts = np.zeros((size, size))
    for history in histories:
        for place, item in enumerate(history):
            for other_place, other in enumerate(history):
                distance = abs(place - other_place)
                if 1 <= distance <= 8 and item != other and max(item, other) <= size:
                    counts[item - 1, other - 1] += 1 / distance
    return counts


def histories_of(log: PackedLog) -> list[list[int]]:
    return [part.tolist() for part in np.split(log.rows, log.offsets[1:-1])]


@pytest.mark.parametrize("size", [ITEMS, 5])
def test_pairs_are_counted_as_by_the_slow_reference(log: PackedLog, size: int) -> None:
    expected = slow_counts(histories_of(log), size)
    np.testing.assert_allclose(pair_counts(log, size).toarray(), expected, rtol=1e-5)


def test_positive_pmi_is_as_defined(log: PackedLog) -> None:
    counts = slow_counts(histories_of(log), ITEMS)
    totals = counts.sum(axis=1)
    expected = np.zeros_like(counts)
    for item in range(ITEMS):
        for context in range(ITEMS):
            if counts[item, context]:
                of_context = totals[context] ** 0.75 / (totals**0.75).sum()
                pmi = math.log(counts[item, context] / totals[item] / of_context)
                expected[item, context] = max(pmi, 0)
    np.testing.assert_allclose(positive_pmi(pair_counts(log, ITEMS)).toarray(), expected, atol=1e-5)


def test_vectors_are_the_first_singular_vectors(log: PackedLog) -> None:
    left, singular, _ = np.linalg.svd(positive_pmi(pair_counts(log, ITEMS)).toarray())
    expected = left[:, :DIM] * np.sqrt(singular[:DIM])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    vectors = cooccurrence_vectors(log, ITEMS, DIM)
    np.testing.assert_allclose(vectors @ vectors.T, expected @ expected.T, atol=1e-4)


def test_items_taken_together_are_near_each_other() -> None:
    random = np.random.default_rng(0)
    groups = [random.permutation(np.arange(1, 7)), random.permutation(np.arange(7, 13))]
    log = log_of([random.choice(groups[user % 2], 4).tolist() for user in range(60)])
    vectors = cooccurrence_vectors(log, ITEMS, 2)
    cosines = vectors @ vectors.T
    assert cosines[:6, :6].min() > 0.9 > 0.1 > cosines[:6, 6:].max()


def test_an_item_alone_has_no_vector() -> None:
    vectors = cooccurrence_vectors(log_of([[1, 2], [2, 1], [3, 3]]), 4, 8)
    assert not vectors[2:].any()
    assert vectors[:2].any(axis=1).all()


@pytest.mark.parametrize("histories", [[[1]], [[1, 1]], [[2], [1]]])
def test_a_log_without_pairs_gives_none(histories: list[list[int]]) -> None:
    assert not cooccurrence_vectors(log_of(histories), 2, 4).any()


def test_of_a_long_log_some_users_are_read(log: PackedLog) -> None:
    expected = cooccurrence_vectors(log.take(np.arange(0, 40, 2)), ITEMS, DIM)
    half = len(log.rows) // 2 + 1
    np.testing.assert_array_equal(
        cooccurrence_vectors(log, ITEMS, DIM, max_interactions=half), expected
    )


def test_only_the_most_popular_items_get_one(log: PackedLog) -> None:
    assert cooccurrence_vectors(log, ITEMS, 4, max_items=5).shape == (5, 4)


def a_model(**settings: object) -> tuple[Model, FitConfig]:
    config = read_config(None, {"encoder": "transformer", "dim": 4, **settings})
    torch.manual_seed(0)
    return Model(config, torch.ones(4 + 1)), config


def test_a_model_begins_with_them_as_long_as_random_ones() -> None:
    model, config = a_model(item_init="co-occurrence", item_init_std=0.5)
    random = model.weight.detach().clone()
    vectors = initial_vectors(config, log_of([[1, 2], [2, 1], [3, 3]]), 4)
    assert vectors is not None
    model.place_items(torch.from_numpy(vectors))
    lengths = model.weight.detach().norm(dim=1)
    torch.testing.assert_close(lengths[1:3], torch.full((2,), 0.5 * math.sqrt(4)))
    assert lengths[0] == 0  # padding
    torch.testing.assert_close(model.weight.detach()[3:], random[3:])  # without pairs


def test_random_vectors_stay() -> None:
    _, config = a_model(item_init="random")
    assert initial_vectors(config, log_of([[1, 2], [2, 1]]), 2) is None


def test_weights_that_are_computed_have_no_beginning() -> None:
    with pytest.raises(ConfigError, match="item_init = 'co-occurrence': linear is computed"):
        read_config(None, {"encoder": "linear", "item_init": "co-occurrence"})


def test_settings_stored_before_begin_at_random(tmp_path: Path) -> None:
    config = read_config(None, {"encoder": "re4", "item_init": "random"})
    assert "item_init" not in config.model_dump(mode="json")


def test_a_fit_knows_more_after_its_first_epoch(planted: Path, tmp_path: Path) -> None:
    recalls = []
    for name in ("random", "co-occurrence"):
        settings = {"encoder": "transformer", "dim": 16, "batch_size": 64, "item_init": name}
        config = read_config(None, {**settings, "epochs": 1})
        data = prepare_log(planted / "interactions.parquet", None, config)
        (tmp_path / name).mkdir()
        result = Trainer(config, data.catalog, data.split, tmp_path / name).run()
        recalls.append(result.metrics["recall@50"])
    assert recalls[1] > 1.2 * recalls[0], recalls

"""Warm start: what is copied by item, what is copied unchanged, and what starts fresh."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from index.encoders.time_gaps import gap_embeddings
from index.release.manifest import EncoderSpec
from index.retrieval.catalog import Catalog
from training.config import FitConfig
from training.data.packed_log import PackedLog
from training.fitting.stream import restrict_gaps
from training.fitting.warm_start import (
    TrainedModel,
    are_vectors_compatible,
    initialize_from,
    is_encoder_compatible,
    train_on_recent,
)
from training.models.model import Model, encoder_arguments

IDS = [f"item-{number}" for number in range(30)]
SMALL = {"recency": True, "dim": 8, "interests": 2, "hidden": 16}


def catalog(ids: list[str]) -> Catalog:
    return Catalog(ids, np.arange(len(ids), 0, -1), [None] * len(ids), [None] * len(ids))


def model(config: FitConfig, items: int, seed: int) -> Model:
    torch.manual_seed(seed)
    return Model(config, torch.ones(items + 1))


def log_of(*histories: list[int]) -> PackedLog:
    rows = np.concatenate(histories).astype(np.int32)
    offsets = np.cumsum([0, *map(len, histories)])
    ids = np.array([f"user-{number}" for number in range(len(histories))], object)
    return PackedLog(rows, offsets, np.arange(len(rows), dtype=float), ids)


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("encoder", ["re4", "timirec", "mind", "sasrec"])
def test_item_vectors_are_copied_by_id_and_encoder_weights_unchanged(encoder):
    config = FitConfig(encoder=encoder, **SMALL)
    old, new = IDS[:20], [*IDS[25:], *IDS[10:20][::-1]]
    trained, fresh = model(config, len(old), 1), model(config, len(new), 2)
    with torch.no_grad():
        trained.weight[1:] *= 5
    vectors = trained.weight.detach().numpy().copy()
    source = TrainedModel(trained.encoder, vectors, catalog(old))
    initialize_from(fresh, catalog(new), source, with_encoder=True, log=log_of([6, 1, 7], [2, 3]))
    table = fresh.weight.detach().numpy()
    assert (table[0] == 0).all()
    for row, item in enumerate(new, start=1):
        if item in old:
            np.testing.assert_array_equal(table[row], vectors[1 + old.index(item)])
    lengths = np.linalg.norm(vectors[1:], axis=1)
    initial = np.linalg.norm(table[1:6], axis=1)
    np.testing.assert_allclose(initial, lengths[9:].mean(), rtol=1e-5)
    neighbors = table[6] + table[7]  # of the first new item; the other new items have none
    assert cosine(table[1], neighbors) > 0.9
    assert max(cosine(table[row], neighbors) for row in range(2, 6)) < 0.9
    for name, weight in fresh.encoder.state_dict().items():
        expected = trained.encoder.state_dict()[name]
        if name == "table.weight":  # TiMiRec's own item embeddings
            rows = [1 + old.index(item) for item in new[5:]]
            torch.testing.assert_close(weight[6:], expected[rows])
        else:
            torch.testing.assert_close(weight, expected)


def test_without_the_encoder_its_weights_stay_random():
    config = FitConfig(**SMALL)
    trained, fresh = model(config, 20, 1), model(config, 20, 2)
    random_weights = {name: weight.clone() for name, weight in fresh.encoder.state_dict().items()}
    vectors = trained.weight.detach().numpy()
    source = TrainedModel(trained.encoder, vectors, catalog(IDS[:20]))
    initialize_from(fresh, catalog(IDS[:20]), source, with_encoder=False, log=log_of([1, 2]))
    for name, weight in fresh.encoder.state_dict().items():
        torch.testing.assert_close(weight, random_weights[name])


@pytest.mark.parametrize(
    ("changes", "compatible"),
    [
        ({}, True),
        ({"dropout": 0.9, "learning_rate": 0.1}, True),
        ({"interests": 4}, False),
        ({"recency": False}, False),
        ({"encoder": "comirec-sa"}, False),
    ],
)
def test_an_encoder_is_compatible_if_name_and_arguments_agree(changes, compatible):
    config = FitConfig(**SMALL)
    live = EncoderSpec(
        name="re4", arguments=encoder_arguments(config, 500), history_length=config.history
    )
    assert is_encoder_compatible(live, config.model_copy(update=changes)) is compatible


def test_an_encoder_stays_compatible_when_the_catalog_grows():
    config = FitConfig(encoder="timirec", **SMALL)
    arguments = encoder_arguments(config, 500)
    assert is_encoder_compatible(
        EncoderSpec(name="timirec", arguments=arguments, history_length=20), config
    )


def test_vectors_are_compatible_if_they_have_the_same_length():
    trained = model(FitConfig(**SMALL), 20, 1)
    source = TrainedModel(trained.encoder, trained.weight.detach().numpy(), catalog(IDS[:20]))
    assert are_vectors_compatible(source, FitConfig(**SMALL))
    assert not are_vectors_compatible(source, FitConfig(dim=16))


def test_train_on_recent_uses_only_recent_interactions():
    config = FitConfig(**SMALL, negatives=4)
    fitted = model(config, 20, 1)
    before = fitted.weight.detach().clone()
    log = log_of(list(range(1, 11)), list(range(5, 15)))
    train_on_recent(fitted, config, log, since=100.0, passes=3)
    torch.testing.assert_close(fitted.weight, before)
    train_on_recent(fitted, config, log, since=18.0, passes=3)
    assert (fitted.weight[14] != before[14]).any()


def test_a_warm_encoder_reads_the_times_of_its_earlier_trainings_too():
    config = FitConfig(encoder="transformer", interests=1, dim=8, heads=1, time_gaps=True)
    trained, fresh = model(config, 20, 1), model(config, 20, 2)
    old = log_of(list(range(1, 11)))
    restrict_gaps(trained, replace(old, times=1.7e9 + 100.0 * np.arange(10)))
    log = replace(old, times=1.7e9 + 86_400.0 * np.arange(10))
    restrict_gaps(fresh, log)
    [gaps] = gap_embeddings(fresh.encoder).values()
    assert set(gaps.nearest.tolist()) == {0, 17}
    source = TrainedModel(trained.encoder, trained.weight.detach().numpy(), catalog(IDS[:20]))
    initialize_from(fresh, catalog(IDS[:20]), source, with_encoder=True, log=log)
    assert set(gaps.nearest.tolist()) == {0, 7, 17}
    train_on_recent(fresh, config, log, since=0.0, passes=1)
    assert gaps.vectors[17].any()


def test_the_encoder_of_a_release_with_former_names_fits():
    config = FitConfig(**SMALL, score_temperature=0.2)
    arguments = encoder_arguments(config, 500)
    arguments["cosine"] = arguments.pop("score_temperature")
    live = EncoderSpec(name="re4", arguments=arguments, history_length=config.history)
    assert is_encoder_compatible(live, config)

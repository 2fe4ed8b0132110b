"""The training loop: reproducible, resumable at any step, with early stopping."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from index.retrieval.catalog import Catalog
from training.config import FitConfig, read_config
from training.data.packed_log import PackedLog
from training.evaluation.evaluate import exact_retriever
from training.evaluation.protocols import DataSplit
from training.fitting.fit import PreparedData, prepare_log
from training.fitting.trainer import DivergedError, FitResult, Trainer
from training.models.model import Model

SMALL = {
    "recency": True,
    "dim": 16,
    "interests": 4,
    "hidden": 32,
    "negatives": 100,
    "batch_size": 64,
    "recontrast": 0.1,
    "reattend": 0.1,
    "reconstruct": 0.1,
}


class Killed(BaseException):
    """Simulates a kill: no code catches it."""


def prepared(planted: Path, config: FitConfig) -> PreparedData:
    return prepare_log(planted / "interactions.parquet", None, config)


def train(data: PreparedData, config: FitConfig, folder: Path, kill_at: int | None = None):
    folder.mkdir(exist_ok=True)
    trainer = Trainer(config, data.catalog, data.split, folder)
    steps = 0

    def on_step(examples: int, state: object) -> None:
        nonlocal steps
        steps += 1
        if steps == kill_at:
            raise Killed

    return trainer.run(on_step)


@pytest.mark.parametrize("sparse_update_threshold", [0, 10**9], ids=["sparse", "dense"])
@pytest.mark.parametrize("kill_at", [1, 30, 75])
def test_a_killed_run_ends_with_the_same_weights(
    planted, tmp_path, monkeypatch, kill_at, sparse_update_threshold
):
    config = FitConfig(
        **SMALL, epochs=3, sparse_update_threshold=sparse_update_threshold, dropout=0.2
    )
    data = prepared(planted, config)
    uninterrupted = train(data, config, tmp_path / "uninterrupted")
    monkeypatch.setattr("training.fitting.trainer.CHECKPOINT_EVERY_S", -1.0)  # after every step
    with pytest.raises(Killed):
        train(data, config, tmp_path / "killed", kill_at)
    resumed = train(data, config, tmp_path / "killed")
    np.testing.assert_array_equal(resumed.vectors, uninterrupted.vectors)
    assert resumed.metrics == uninterrupted.metrics
    assert [r["losses"] for r in resumed.history] == [r["losses"] for r in uninterrupted.history]


def test_a_killed_run_over_all_positions_ends_with_the_same_weights(planted, tmp_path, monkeypatch):
    config = FitConfig(
        **{**SMALL, "recontrast": 0, "reattend": 0, "reconstruct": 0},
        encoder="transformer",
        positions="all",
        item_init="co-occurrence",
        epochs=2,
    )
    data = prepared(planted, config)
    uninterrupted = train(data, config, tmp_path / "uninterrupted")
    monkeypatch.setattr("training.fitting.trainer.CHECKPOINT_EVERY_S", -1.0)
    with pytest.raises(Killed):
        train(data, config, tmp_path / "killed", kill_at=40)
    resumed = train(data, config, tmp_path / "killed")
    np.testing.assert_array_equal(resumed.vectors, uninterrupted.vectors)
    assert resumed.metrics == uninterrupted.metrics


@pytest.mark.parametrize("sparse_update_threshold", [0, 10**9], ids=["sparse", "dense"])
def test_with_cosine_scores_items_have_length_one(planted, tmp_path, sparse_update_threshold):
    config = FitConfig(
        **SMALL, epochs=4, score_temperature=0.1, sparse_update_threshold=sparse_update_threshold
    )
    data = prepared(planted, config)
    fitted = train(data, config, tmp_path)
    np.testing.assert_allclose(np.linalg.norm(fitted.vectors[1:], axis=1), 1, rtol=1e-5)
    assert (fitted.vectors[0] == 0).all()
    retriever = exact_retriever(data.catalog, fitted.encoder, fitted.vectors, config.history)
    interests = retriever.encode([[1, 2], [3]])
    np.testing.assert_allclose(np.linalg.norm(interests, axis=2), 10, rtol=1e-5)
    assert fitted.metrics["recall@50"] > 2 * 50 / len(data.catalog)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(planted, tmp_path):
    data = prepared(planted, FitConfig(**SMALL))
    first, repeated, different = (
        train(data, FitConfig(**SMALL, epochs=1, seed=seed), tmp_path / name)
        for name, seed in [("first", 5), ("repeated", 5), ("different", 6)]
    )
    np.testing.assert_array_equal(first.vectors, repeated.vectors)
    assert (first.vectors != different.vectors).any()


def test_training_stops_when_validation_no_longer_improves_and_keeps_the_best(planted, tmp_path):
    config = FitConfig(**SMALL, epochs=60, patience=1, patience_steps=0, learning_rate=0.03)
    fitted = train(prepared(planted, config), config, tmp_path)
    series = [record["validation"]["recall@50"] for record in fitted.history]
    assert len(series) < 60
    assert fitted.metrics["recall@50"] == max(series)
    assert series[-1] <= max(series[:-1])


def test_finalize_decides_the_weights_even_if_others_were_better(planted, tmp_path):
    """It runs once, after all epochs, and an interrupted run ends with the same weights."""
    config = FitConfig(**SMALL, epochs=3, patience=1, patience_steps=0, dropout=0.2)
    data = prepared(planted, config)
    interrupted = True

    def finalize(model: Model) -> None:
        with torch.no_grad():
            model.weight.copy_(torch.randn_like(model.weight))
        if interrupted:
            raise Killed

    def run(folder: Path, finalize: Callable[[Model], None]) -> FitResult:
        folder.mkdir(exist_ok=True)
        return Trainer(config, data.catalog, data.split, folder, finalize=finalize).run()

    with pytest.raises(Killed):
        run(tmp_path / "killed", finalize)
    interrupted = False
    resumed, uninterrupted = (
        run(tmp_path / "killed", finalize),
        run(tmp_path / "uninterrupted", finalize),
    )
    assert len(uninterrupted.history) == 3
    assert uninterrupted.metrics["recall@50"] < uninterrupted.history[0]["validation"]["recall@50"]
    np.testing.assert_array_equal(resumed.vectors, uninterrupted.vectors)

    def never(model: Model) -> None:
        pytest.fail("the run is finished already")

    np.testing.assert_array_equal(run(tmp_path / "killed", never).vectors, uninterrupted.vectors)


def test_divergence_is_an_error_that_suggests_a_lower_learning_rate(planted, tmp_path):
    config = FitConfig(**SMALL, learning_rate=1e18)
    with pytest.raises(DivergedError, match="learning rate below"):
        train(prepared(planted, config), config, tmp_path)


def test_a_closed_form_is_one_record_and_has_no_epochs(planted, tmp_path):
    config = read_config(None, {"encoder": "linear", "dim": 32, "ease_l2": 10.0})
    data = prepared(planted, config)
    steps: list[int] = []
    trainer = Trainer(config, data.catalog, data.split, tmp_path)
    result = trainer.run(lambda examples, state: steps.append(examples))
    again = Trainer(config, data.catalog, data.split, tmp_path).run()
    assert not steps
    assert [record["epoch"] for record in result.history] == [0]
    assert result.metrics["recall@20"] > 0.3
    np.testing.assert_array_equal(again.vectors, result.vectors)


def test_too_small_an_l2_is_told(tmp_path):
    rows = np.tile(np.arange(1, 41, dtype=np.int32), 30)  # all users took all items: rank 1
    log = PackedLog(rows, np.arange(31) * 40, np.zeros(1200), np.array(["u"] * 30, dtype=object))
    config = read_config(None, {"encoder": "linear", "ease_l2": 1e-12})
    ids = [f"i{n}" for n in range(40)]
    catalog = Catalog(ids, np.full(40, 30), [None] * 40, [None] * 40)
    with pytest.raises(DivergedError, match=r"ease_l2 = 1e-12: .*; give more"):
        Trainer(config, catalog, DataSplit(log, [], []), tmp_path)


def test_a_linear_schedule_falls_to_a_share_of_the_rate(planted, tmp_path):
    config = FitConfig(**SMALL, epochs=4, learning_rate=0.01, learning_rate_schedule="linear")
    data = prepared(planted, config)
    trainer = Trainer(config, data.catalog, data.split, tmp_path)
    rates: list[float] = []
    trainer.run(lambda *_: rates.append(trainer._optimizers[0].param_groups[0]["lr"]))
    assert sorted({round(rate, 6) for rate in rates}, reverse=True) == [0.01, 0.0075, 0.005, 0.0025]

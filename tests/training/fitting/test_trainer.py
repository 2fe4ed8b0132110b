"""The loop: repeatable, resumable at any step, stopping in time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from training.config import FitConfig
from training.evaluation.evaluate import exact
from training.fitting.fit import Prepared, prepare_log
from training.fitting.trainer import DivergedError, Fitted, Trainer
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
    """Stands for a kill: nothing catches it."""


def prepared(planted: Path, config: FitConfig) -> Prepared:
    return prepare_log(planted / "interactions.parquet", None, config)


def train(ready: Prepared, config: FitConfig, folder: Path, kill_at: int | None = None):
    folder.mkdir(exist_ok=True)
    trainer = Trainer(config, ready.catalog, ready.task, folder)
    steps = 0

    def on_step(examples: int, progress: object) -> None:
        nonlocal steps
        steps += 1
        if steps == kill_at:
            raise Killed

    return trainer.run(on_step)


@pytest.mark.parametrize("threshold", [0, 10**9], ids=["sparse", "dense"])
@pytest.mark.parametrize("kill_at", [1, 30, 75])
def test_a_killed_run_ends_as_an_unbroken_one(planted, tmp_path, monkeypatch, kill_at, threshold):
    config = FitConfig(**SMALL, epochs=3, sparse_update_threshold=threshold, dropout=0.2)
    ready = prepared(planted, config)
    unbroken = train(ready, config, tmp_path / "unbroken")
    monkeypatch.setattr("training.fitting.trainer.CHECKPOINT_EVERY_S", -1.0)  # after every step
    with pytest.raises(Killed):
        train(ready, config, tmp_path / "killed", kill_at)
    resumed = train(ready, config, tmp_path / "killed")
    np.testing.assert_array_equal(resumed.vectors, unbroken.vectors)
    assert resumed.metrics == unbroken.metrics
    assert [r["losses"] for r in resumed.history] == [r["losses"] for r in unbroken.history]


@pytest.mark.parametrize("threshold", [0, 10**9], ids=["sparse", "dense"])
def test_with_cosine_scores_items_have_length_one(planted, tmp_path, threshold):
    config = FitConfig(**SMALL, epochs=4, score_temperature=0.1, sparse_update_threshold=threshold)
    ready = prepared(planted, config)
    fitted = train(ready, config, tmp_path)
    np.testing.assert_allclose(np.linalg.norm(fitted.vectors[1:], axis=1), 1, rtol=1e-5)
    assert (fitted.vectors[0] == 0).all()
    retriever = exact(ready.catalog, fitted.encoder, fitted.vectors, config.history)
    interests = retriever.encode([[1, 2], [3]])
    np.testing.assert_allclose(np.linalg.norm(interests, axis=2), 10, rtol=1e-5)
    assert fitted.metrics["recall@50"] > 2 * 50 / len(ready.catalog)


def test_seeds_repeat_and_differ(planted, tmp_path):
    ready = prepared(planted, FitConfig(**SMALL))
    one, again, other = (
        train(ready, FitConfig(**SMALL, epochs=1, seed=seed), tmp_path / name)
        for name, seed in [("one", 5), ("again", 5), ("other", 6)]
    )
    np.testing.assert_array_equal(one.vectors, again.vectors)
    assert (one.vectors != other.vectors).any()


def test_stops_when_validation_no_longer_improves_and_keeps_the_best(planted, tmp_path):
    config = FitConfig(**SMALL, epochs=60, patience=1, patience_steps=0, learning_rate=0.03)
    fitted = train(prepared(planted, config), config, tmp_path)
    series = [record["validation"]["recall@50"] for record in fitted.history]
    assert len(series) < 60
    assert fitted.metrics["recall@50"] == max(series)
    assert series[-1] <= max(series[:-1])


def test_what_finishes_a_run_comes_out_of_it_whatever_was_better(planted, tmp_path):
    """After all epochs, once, and the same where it is cut short."""
    config = FitConfig(**SMALL, epochs=3, patience=1, patience_steps=0, dropout=0.2)
    ready = prepared(planted, config)
    cut_short = True

    def finish(model: Model) -> None:
        with torch.no_grad():
            model.table.weight.copy_(torch.randn_like(model.table.weight))
        if cut_short:
            raise Killed

    def run(folder: Path, finish: Callable[[Model], None]) -> Fitted:
        folder.mkdir(exist_ok=True)
        return Trainer(config, ready.catalog, ready.task, folder, finish=finish).run()

    with pytest.raises(Killed):
        run(tmp_path / "killed", finish)
    cut_short = False
    resumed, unbroken = run(tmp_path / "killed", finish), run(tmp_path / "unbroken", finish)
    assert len(unbroken.history) == 3
    assert unbroken.metrics["recall@50"] < unbroken.history[0]["validation"]["recall@50"]
    np.testing.assert_array_equal(resumed.vectors, unbroken.vectors)

    def never(model: Model) -> None:
        pytest.fail("is finished")

    np.testing.assert_array_equal(run(tmp_path / "killed", never).vectors, unbroken.vectors)


def test_divergence_is_an_error_that_names_the_cure(planted, tmp_path):
    config = FitConfig(**SMALL, learning_rate=1e18)
    with pytest.raises(DivergedError, match="learning rate below"):
        train(prepared(planted, config), config, tmp_path)

"""Cached runs, tuning on validation, and significance."""

import numpy as np
import pytest

from index.release.lock import exclusive_lock
from tests.training.experiments.tiny import TINY
from training.config import ConfigError
from training.data.synthetic import write_synthetic
from training.experiments.compare import compare, system_config
from training.experiments.runner import ExperimentRunner, significance


def test_a_run_is_cached(runner, monkeypatch):
    (first,) = compare(runner, ["re4"], 2, 1, TINY)
    monkeypatch.setattr(runner, "_train", None)
    (repeated,) = compare(runner, ["re4"], 2, 1, TINY)
    assert first == repeated
    assert first.runs[0].test != first.runs[1].test


def test_a_run_that_another_process_is_at_is_refused_and_left_alone(runner):
    config = system_config("re4", TINY, "best")
    folder = runner._path(config).with_suffix("")
    folder.mkdir()
    with (
        exclusive_lock(folder / "lock", RuntimeError()),
        pytest.raises(ConfigError, match=r"another process is at this run; wait for it, or choose"),
    ):
        runner.run(config)
    assert [path.name for path in folder.iterdir()] == ["lock"]
    assert runner.run(config).curve, "which is made once the other is gone"


def test_trials_are_selected_on_validation(runner):
    trials = [{"learning_rate": 1e-7}, {"learning_rate": 0.02}]
    config = system_config("re4", TINY | {"epochs": 4}, "best")
    selected = runner.tune("re4", config, trials)
    scores = [
        runner.run(config.model_copy(update=trial)).validation["recall@50"] for trial in trials
    ]
    assert selected.learning_rate == trials[int(np.argmax(scores))]["learning_rate"]


def test_significance_is_paired_over_users(runner):
    better, worse = compare(runner, ["re4", "re4:learning_rate=1e-9"], 1, 1, TINY)
    assert significance(better, better, "recall@50") == 1.0
    assert 0 <= significance(better, worse, "recall@50") <= 1


def test_the_seeds_are_counted_from_the_one_that_is_given(runner):
    (system,) = compare(runner, ["re4"], 2, 1, TINY | {"seed": 5})
    assert [run.config["seed"] for run in system.runs] == [5, 6]
    (system,) = compare(runner, ["re4:seed=7"], 2, 1, TINY)
    assert [run.config["seed"] for run in system.runs] == [7, 8]


def test_a_trial_does_not_change_a_setting_that_is_given(runner):
    (system,) = compare(runner, ["re4"], 1, 4, TINY | {"learning_rate": 1e-7, "dropout": 0.0})
    assert (system.runs[0].config["learning_rate"], system.runs[0].config["dropout"]) == (1e-7, 0)
    (system,) = compare(runner, ["re4:learning_rate=1e-7"], 1, 3, TINY)
    assert system.runs[0].config["learning_rate"] == 1e-7


def test_a_log_that_was_rewritten_is_trained_on_anew(planted, tmp_path):
    """The same path and settings, other content: the first log's results are not the second's."""
    log = tmp_path / "log.parquet"
    results = []
    for seed in (1, 2, 1):
        write_synthetic(tmp_path / "new", users=120, items=60, seed=seed)
        (tmp_path / "new" / "interactions.parquet").rename(log)
        runner = ExperimentRunner(log, tmp_path / "runs", lambda text: None)
        (system,) = compare(runner, ["re4"], 1, 1, TINY)
        results.append(system.runs[0])
    assert results[0] == results[2]
    assert results[0].test != results[1].test
    assert len(list((tmp_path / "runs").glob("*.json"))) == 2


def test_a_log_is_the_same_under_another_name(runner, planted, tmp_path, monkeypatch):
    (first,) = compare(runner, ["re4"], 1, 1, TINY)
    copied = tmp_path / "copied.parquet"
    copied.write_bytes((planted / "interactions.parquet").read_bytes())
    renamed = ExperimentRunner(copied, runner.folder, lambda text: None)
    monkeypatch.setattr(renamed, "_train", None)
    (second,) = compare(renamed, ["re4"], 1, 1, TINY)
    assert first == second

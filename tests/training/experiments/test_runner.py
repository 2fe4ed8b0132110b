"""Cached runs, tuning on validation, and significance."""

import numpy as np

from tests.training.experiments.tiny import TINY
from training.experiments.compare import compare, system_config
from training.experiments.runner import significance


def test_a_run_is_cached(runner, monkeypatch):
    (first,) = compare(runner, ["re4"], 2, 1, TINY)
    monkeypatch.setattr(runner, "_train", None)
    (repeated,) = compare(runner, ["re4"], 2, 1, TINY)
    assert first == repeated
    assert first.runs[0].test != first.runs[1].test


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

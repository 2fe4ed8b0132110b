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

"""Systems side by side: equal trials, runs made once, tables, CSV, plots and the paper's sweeps."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from index.encoders import ENCODERS
from training.config import ConfigError
from training.evaluation.interest_clusters import inter_user, intra_user
from training.experiments.compare import compare, system_config
from training.experiments.paper_sweeps import SWEEPS
from training.experiments.runner import ExperimentRunner, significance
from training.experiments.user_segments import kinds

TINY = {
    "dim": 8,
    "interests": 2,
    "hidden": 8,
    "negatives": 20,
    "epochs": 1,
    "history": 6,
    "pretrain_epochs": 0,
}
SETS = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture
def laboratory(planted: Path, tmp_path: Path) -> ExperimentRunner:
    return ExperimentRunner(planted / "interactions.parquet", tmp_path / "runs", lambda text: None)


@pytest.mark.parametrize("split", ["unseen-users", "leave-one-out", "sampled-99", "temporal"])
def test_every_protocol_compares(laboratory, split):
    systems = compare(laboratory, ["pop", "re4"], 1, 1, TINY | {"split": split})
    for system in systems:
        (outcome,) = system.outcomes
        assert 0 <= outcome.test["recall@20"] <= 1
        assert outcome.test["recall@20"] == pytest.approx(
            np.mean(outcome.users["recall@20"]), abs=1e-5
        )


def test_every_encoder_trains_and_is_evaluated(laboratory):
    systems = compare(laboratory, list(ENCODERS), 1, 1, TINY)
    assert [system.name for system in systems] == list(ENCODERS)
    for system in systems:
        assert np.isfinite(system.values("recall@50")).all()
        assert system.outcomes[0].encode_us > 0


def test_a_run_is_made_once(laboratory, monkeypatch):
    (first,) = compare(laboratory, ["re4"], 2, 1, TINY)
    monkeypatch.setattr(laboratory, "_train", None)
    (again,) = compare(laboratory, ["re4"], 2, 1, TINY)
    assert first == again
    assert first.outcomes[0].test != first.outcomes[1].test


def test_trials_are_judged_on_validation(laboratory):
    trials = [{"learning_rate": 1e-7}, {"learning_rate": 0.02}]
    config = system_config("re4", TINY | {"epochs": 4}, "best")
    chosen = laboratory.tuned("re4", config, trials)
    scores = [
        laboratory.run(config.model_copy(update=trial)).validation["recall@50"] for trial in trials
    ]
    assert chosen.learning_rate == trials[int(np.argmax(scores))]["learning_rate"]


def test_significance_is_of_paired_users(laboratory):
    better, worse = compare(laboratory, ["re4", "re4:learning_rate=1e-9"], 1, 1, TINY)
    assert significance(better, better, "recall@50") == 1.0
    assert 0 <= significance(better, worse, "recall@50") <= 1


def test_kinds_of_users_are_all_users(planted, tmp_path, monkeypatch):
    monkeypatch.setattr("training.experiments.user_segments._LEAST", 1)  # the log is small
    log, items = planted / "interactions.parquet", planted / "items.parquet"
    laboratory = ExperimentRunner(log, tmp_path, lambda text: None, items)
    systems = compare(laboratory, ["pop", "re4"], 1, 1, TINY)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in kinds(laboratory, systems).splitlines()[4:]
    ]
    for what in ("items in the history", "categories in it"):
        part = [row for row in rows if row[0].startswith(what)]
        users = np.array([int(row[1]) for row in part])
        means = np.array([float(row[3].strip("*")) for row in part])
        assert users.sum() == len(systems[1].users("recall@50"))
        whole = systems[1].values("recall@50").mean()
        assert (users * means).sum() / users.sum() == pytest.approx(whole, abs=1e-3)


def test_settings_of_one_system(laboratory):
    config = system_config("re4:interests=3;head=tanh", TINY, "best")
    assert (config.interests, config.head, config.dim) == (3, "tanh", 8)
    papers = system_config("re4:preset=paper;reattend=0", TINY, "best")
    assert (papers.objective, papers.recency, papers.reattend) == ("softmax", False, 0)
    with pytest.raises(ConfigError, match="choose best or paper"):
        system_config("re4:preset=own", TINY, "best")
    with pytest.raises(ConfigError, match="write key=value"):
        system_config("re4:interests", TINY, "best")
    with pytest.raises(ConfigError, match="known are"):
        system_config("re4:interest=3", TINY, "best")


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_papers_settings_are_settings(encoder):
    assert system_config(encoder, {}, "paper").encoder == encoder


def test_the_command_writes_table_csv_and_plots(planted, tmp_path, run_command):
    out = tmp_path / "out"
    log = str(planted / "interactions.parquet")
    arguments = ["compare", log, "--encoders", "pop,re4", "--seeds", "2", "--trials", "1"]
    done = run_command(*arguments, "--out", out, *SETS)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(out / "compare.md")
    assert "by kind of user" in (out / "compare.md").read_text()
    assert "| re4 |" in (out / "compare.md").read_text()
    lines = list(csv.DictReader((out / "compare.csv").read_text().splitlines()))
    assert [line["system"] for line in lines] == ["pop", "re4", "re4"]
    assert (out / "compare.png").stat().st_size > 1000
    assert (out / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize("name", SWEEPS)
def test_sweeps_run(planted, tmp_path, name, run_command):
    log = str(planted / "interactions.parquet")
    arguments = ["reproduce", name, log, "--seeds", "1", "--out", str(tmp_path), *SETS]
    done = run_command(*arguments, "--data-set", "gowalla")
    assert done.exit_code == 0, done.stderr
    told = (tmp_path / f"{name}.md").read_text()
    assert all(f"| {label} |" in told for label in SWEEPS[name])
    if name == "re4-table4":
        assert "0.3140" in told
    if "fig" in name:
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("name", SWEEPS)
def test_every_row_of_every_sweep_is_a_setting(name):
    for text in SWEEPS[name].values():
        json.dumps(system_config(text, {}, "paper").model_dump())


def test_inter_and_intra_on_clusters_anyone_can_see():
    # Two users far apart, two interests each, items on the interests.
    interests = np.array([[[10, 0], [10, 1]], [[-10, 0], [-10, 1]]], dtype=np.float32)
    items = [np.repeat(user, 3, axis=0) for user in interests]
    assert inter_user(interests, items) == 100
    assert intra_user(interests, items) == 100
    collapsed = np.array([[[10, 0], [10, 0]]], dtype=np.float32)
    apart = [np.array([[10, 0], [9, 5], [9, 5]], dtype=np.float32)]
    assert intra_user(collapsed, apart) == 50

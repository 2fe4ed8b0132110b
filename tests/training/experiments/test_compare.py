"""Comparisons: equal trials, cached runs, tables, CSV, plots and the sweeps of the paper."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from index.encoders import ENCODERS
from training.__main__ import main
from training.config import ConfigError
from training.evaluation.interest_clusters import inter_user, intra_user
from training.experiments.compare import compare, system_config
from training.experiments.paper_sweeps import SWEEPS
from training.experiments.runner import ExperimentRunner, significance
from training.experiments.user_segments import segment_table

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
def runner(planted: Path, tmp_path: Path) -> ExperimentRunner:
    return ExperimentRunner(planted / "interactions.parquet", tmp_path / "runs", lambda text: None)


@pytest.mark.parametrize("split", ["unseen-users", "leave-one-out", "sampled-99", "temporal"])
def test_every_protocol_compares(runner, split):
    systems = compare(runner, ["pop", "re4"], 1, 1, TINY | {"split": split})
    for system in systems:
        (run,) = system.runs
        assert 0 <= run.test["recall@20"] <= 1
        assert run.test["recall@20"] == pytest.approx(np.mean(run.users["recall@20"]), abs=1e-5)


def test_every_encoder_trains_and_is_evaluated(runner):
    systems = compare(runner, list(ENCODERS), 1, 1, TINY)
    assert [system.name for system in systems] == list(ENCODERS)
    for system in systems:
        assert np.isfinite(system.values("recall@50")).all()
        assert system.runs[0].encode_us > 0


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


def test_segments_cover_all_users(planted, tmp_path, monkeypatch):
    monkeypatch.setattr("training.experiments.user_segments._MIN_USERS", 1)  # the log is small
    log, items = planted / "interactions.parquet", planted / "items.parquet"
    runner = ExperimentRunner(log, tmp_path, lambda text: None, items)
    systems = compare(runner, ["pop", "re4"], 1, 1, TINY)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in segment_table(runner, systems).splitlines()[4:]
    ]
    for label in ("items in the history", "categories in it"):
        segment_rows = [row for row in rows if row[0].startswith(label)]
        users = np.array([int(row[1]) for row in segment_rows])
        means = np.array([float(row[3].strip("*")) for row in segment_rows])
        assert users.sum() == len(systems[1].users("recall@50"))
        mean = systems[1].values("recall@50").mean()
        assert (users * means).sum() / users.sum() == pytest.approx(mean, abs=1e-3)


def test_a_system_can_have_its_own_settings(runner):
    config = system_config("re4:interests=3;head=tanh", TINY, "best")
    assert (config.interests, config.head, config.dim) == (3, "tanh", 8)
    paper = system_config("re4:preset=paper;reattend=0", TINY, "best")
    assert (paper.objective, paper.recency, paper.reattend) == ("softmax", False, 0)
    with pytest.raises(ConfigError, match="choose best or paper"):
        system_config("re4:preset=own", TINY, "best")
    with pytest.raises(ConfigError, match="write key=value"):
        system_config("re4:interests", TINY, "best")
    with pytest.raises(ConfigError, match="known are"):
        system_config("re4:interest=3", TINY, "best")


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_paper_preset_is_valid_for_every_encoder(encoder):
    assert system_config(encoder, {}, "paper").encoder == encoder


def test_the_command_writes_table_csv_and_plots(planted, tmp_path):
    out = tmp_path / "out"
    log = str(planted / "interactions.parquet")
    arguments = ["compare", log, "--encoders", "pop,re4", "--seeds", "2", "--trials", "1"]
    result = CliRunner().invoke(main, [*arguments, "--out", str(out), *SETS])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == str(out / "compare.md")
    assert "by user segment" in (out / "compare.md").read_text()
    assert "| re4 " in (out / "compare.md").read_text()
    rows = list(csv.DictReader((out / "compare.csv").read_text().splitlines()))
    assert [row["system"] for row in rows] == ["pop", "re4", "re4"]
    assert (out / "compare.png").stat().st_size > 1000
    assert (out / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize("name", SWEEPS)
def test_sweeps_run(planted, tmp_path, name):
    log = str(planted / "interactions.parquet")
    arguments = ["reproduce", name, log, "--seeds", "1", "--out", str(tmp_path), *SETS]
    result = CliRunner().invoke(main, [*arguments, "--data-set", "gowalla"])
    assert result.exit_code == 0, result.output
    markdown = (tmp_path / f"{name}.md").read_text()
    assert all(f"| {label} " in markdown for label in SWEEPS[name])
    if name == "re4-table4":
        assert "0.3140" in markdown
    if "fig" in name:
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("name", SWEEPS)
def test_every_row_of_every_sweep_has_valid_settings(name):
    for text in SWEEPS[name].values():
        json.dumps(system_config(text, {}, "paper").model_dump())


def test_inter_and_intra_on_well_separated_clusters():
    # Two distant users with two interests each, and items at the interests.
    interests = np.array([[[10, 0], [10, 1]], [[-10, 0], [-10, 1]]], dtype=np.float32)
    items = [np.repeat(user, 3, axis=0) for user in interests]
    assert inter_user(interests, items) == 100
    assert intra_user(interests, items) == 100
    collapsed = np.array([[[10, 0], [10, 0]]], dtype=np.float32)
    apart = [np.array([[10, 0], [9, 5], [9, 5]], dtype=np.float32)]
    assert intra_user(collapsed, apart) == 50

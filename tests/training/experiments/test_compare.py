"""Comparison of systems: protocols, encoders, settings of one system, and the command."""

import csv
from pathlib import Path

import numpy as np
import pytest

from index.encoders import ENCODERS
from tests.training.experiments.tiny import TINY, TINY_OPTIONS
from training.config import ConfigError
from training.evaluation.rankings import popularity_order
from training.experiments.compare import compare, system_config
from training.experiments.runner import ExperimentRunner


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


def test_a_system_can_have_its_own_settings(runner):
    config = system_config("re4:interests=3;head=tanh", TINY, "best")
    assert (config.interests, config.head, config.dim) == (3, "tanh", 8)
    paper = system_config("re4:preset=paper;reattend=0", TINY, "best")
    assert (paper.objective, paper.recency, paper.reattend) == ("softmax", False, 0)
    with pytest.raises(ConfigError, match="choose accurate or diverse or best or paper"):
        system_config("re4:preset=own", TINY, "best")
    with pytest.raises(ConfigError, match="write key=value"):
        system_config("re4:interests", TINY, "best")
    with pytest.raises(ConfigError, match="known are"):
        system_config("re4:interest=3", TINY, "best")


def test_a_setting_that_would_be_ignored_is_refused(runner):
    with pytest.raises(ConfigError, match="encoder: name it in --encoders"):
        compare(runner, ["re4"], 1, 1, TINY | {"encoder": "mind"})
    with pytest.raises(ConfigError, match="encoder: name it in --encoders"):
        compare(runner, ["re4:encoder=mind"], 1, 1, TINY)


@pytest.mark.parametrize(
    "setting",
    ["split=temporal", "split_seed=3", "min_item_interactions=2", "test_fraction=0.2"],
)
def test_systems_are_compared_on_the_same_users_only(runner, setting):
    with pytest.raises(ConfigError, match=f"{setting.partition('=')[0]} is .* for re4:{setting}"):
        compare(runner, ["pop", f"re4:{setting}"], 1, 1, TINY)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_paper_preset_is_valid_for_every_encoder(encoder):
    assert system_config(encoder, {}, "paper").encoder == encoder


def test_the_command_writes_table_csv_and_plots(planted, tmp_path, run_command):
    out = tmp_path / "out"
    log = str(planted / "interactions.parquet")
    arguments = ["compare", log, "--encoders", "pop,re4", "--seeds", "2", "--trials", "1"]
    result = run_command(*arguments, "--out", out, *TINY_OPTIONS)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == str(out / "compare.md")
    assert "by user segment" in (out / "compare.md").read_text()
    assert "| re4 " in (out / "compare.md").read_text()
    rows = list(csv.DictReader((out / "compare.csv").read_text().splitlines()))
    assert [row["system"] for row in rows] == ["pop", "re4", "re4"]
    assert (out / "compare.png").stat().st_size > 1000
    assert (out / "curves.png").stat().st_size > 1000


def _with_a_late_hit(folder: Path) -> Path:
    """200 users over 200 items; HIT is taken only in the last tenth of the time, by everyone."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(200):
        rows += [(f"u{user}", f"i{rng.integers(200)}", time) for time in rng.uniform(0, 90, 10)]
        rows.append((f"u{user}", "HIT", rng.uniform(91, 100)))
    log = folder / "log.csv"
    lines = [f"{user},{item},{time}" for user, item, time in rows]
    log.write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    return log


@pytest.mark.parametrize("split", ["temporal", "leave-one-out", "sampled-99"])
def test_popularity_is_that_of_the_training_part(tmp_path, split):
    """HIT is held out of every user, so nothing in the training part speaks for it."""
    runner = ExperimentRunner(_with_a_late_hit(tmp_path), tmp_path / "runs", lambda text: None)
    common = {"split": split, "test_fraction": 0.09, "min_item_interactions": 1}
    (system,) = compare(runner, ["pop"], 1, 1, common)
    assert system.runs[0].test["recall@50"] == 0


def test_items_of_equal_popularity_are_in_an_order_of_chance():
    counts = np.array([3, 3, 3, 3, 3, 0, 3, 3, 3, 3])
    order = popularity_order(counts, [f"i{row:02d}" for row in range(10)])
    assert order != sorted(order)
    assert set(order) == set(range(10)) - {5}  # what nobody took is not popular
    assert popularity_order(np.array([1, 5, 2]), ["a", "b", "c"]) == [1, 2, 0]

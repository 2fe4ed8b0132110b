"""Comparison of systems: protocols, encoders, settings of one system, and the command."""

import csv
from pathlib import Path

import numpy as np
import pytest

from index.encoders import ENCODERS
from tests.training.experiments.tiny import TINY, TINY_OPTIONS
from training.config import ConfigError
from training.evaluation.popularity import popularity_order
from training.experiments.compare import compare, system_config, with_popularity
from training.experiments.report import has_several_interests, plot_interests
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


def test_baselines_find_planted_interests_of_users_never_seen(runner):
    systems = compare(runner, ["pop", "ease", "item-knn"], 1, 2, TINY)
    popular, *others = (system.values("recall@20").mean() for system in systems)
    assert min(others) > 2 * popular
    assert len(list(runner.folder.glob("*.json"))) == 1 + 2 + 2
    assert compare(runner, ["ease"], 1, 2, TINY) == systems[1:2]


def test_the_trial_of_a_baseline_is_chosen_on_validation(runner):
    (best,) = compare(runner, ["ease"], 1, 2, TINY)
    each = [compare(runner, [f"ease:l2={l2}"], 1, 2, TINY)[0] for l2 in (20, 500)]
    scores = [system.values("recall@50", "validation")[0] for system in each]
    assert best.runs == each[int(np.argmax(scores))].runs


def test_a_baseline_can_have_its_own_settings(runner):
    (system,) = compare(runner, ["item-knn:decay=0.5;neighbours=10"], 1, 1, TINY)
    stored = system.runs[0].config["baseline"]
    assert stored == {"neighbours": 10, "shrinkage": 0, "decay": 0.5}
    with pytest.raises(ConfigError, match="l2 = 0: Input should be greater than 0"):
        compare(runner, ["ease:l2=0"], 1, 1, TINY)
    with pytest.raises(ConfigError, match="known are"):
        compare(runner, ["ease:decay=0.5"], 1, 1, TINY)


def test_ease_says_what_it_leaves_out_of_a_large_catalogue(planted, tmp_path):
    messages = []
    runner = ExperimentRunner(planted / "interactions.parquet", tmp_path, messages.append)
    (system,) = compare(runner, ["ease:max_items=50"], 1, 1, TINY)
    [message] = [text for text in messages if "items, of which" in text]
    assert "it ranks the 50 most popular" in message
    assert "--set min_item_interactions=N" in message
    assert system.values("recall@50") > 0


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
    table = (out / "compare.md").read_text()
    for text in ("| re4 ", "by user segment", "distinct_share", "minor interests", "--items"):
        assert text in table
    rows = list(csv.DictReader((out / "compare.csv").read_text().splitlines()))
    assert [row["system"] for row in rows] == ["pop", "re4", "re4", "pop-recent"]
    assert (out / "compare.png").stat().st_size > 1000
    assert (out / "curves.png").stat().st_size > 1000
    assert (out / "interests.png").exists()
    arguments[3] = "pop"
    run_command(*arguments, "--out", out, *TINY_OPTIONS)
    assert not (out / "interests.png").exists(), "a plot of systems that are not compared here"


def test_only_systems_of_several_interests_are_drawn_by_their_lists(runner, tmp_path):
    texts = ["pop", "sasrec", "re4:interests=1", "re4"]
    systems = compare(runner, texts, 1, 1, TINY)
    assert [system.name for system in systems if has_several_interests(system)] == ["re4"]
    plot_interests(tmp_path / "interests.png", systems)
    assert (tmp_path / "interests.png").stat().st_size > 1000


def test_the_table_says_what_interests_are_for(planted, tmp_path, run_command):
    log, items = planted / "interactions.parquet", planted / "items.parquet"
    arguments = ["compare", log, "--items", items, "--encoders", "re4", "--seeds", "1"]
    result = run_command(*arguments, "--trials", "1", "--out", tmp_path, *TINY_OPTIONS)
    assert result.exit_code == 0, result.stderr
    sections = (tmp_path / "compare.md").read_text().split("\n\n")
    titles = [text for text in sections if not text.startswith("|")]
    assert titles[:3] == [
        "Interests, items of the history removed",
        "Interests, items of the history kept",
        "By categories in the history",
    ]
    for title in titles[:2]:
        header, _, *rows = sections[sections.index(title) + 1].splitlines()
        assert all(f" {name} " in header for name in ("distinct_share", "minor_recall@50"))
        assert [row.split("|")[1].strip() for row in rows] == ["re4", "pop", "pop-recent"]
        share = [name.strip() for name in header.split("|")].index("distinct_share")
        assert 0.5 <= float(rows[0].split("|")[share]) <= 1  # K = 2
        assert rows[1].split("|")[share].strip() == ""  # popularity has no interests


def test_last_weeks_need_times(tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"u{user},i{rng.integers(30)},{n}" for user in range(60) for n in range(8)]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    runner = ExperimentRunner(log, tmp_path / "runs", lambda text: None)
    assert with_popularity(runner, ["ease"], TINY, "best") == ["ease", "pop"]
    with pytest.raises(ConfigError, match="pop-recent: the log has no times"):
        compare(runner, ["pop-recent"], 1, 1, TINY)


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

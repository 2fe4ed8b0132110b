"""Offline as online: seen items, unknown items, and how the log is read."""

import json
from pathlib import Path

import numpy as np
import pytest

from index.release.build import build
from index.release.manifest import read_manifest
from index.release.reading import open_release
from index.retrieval.query import Query
from tests.training.experiments.tiny import TINY
from training.config import FitConfig
from training.evaluation.evaluate import evaluate_release
from training.fitting.fit import fit


def write_log(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    lines = [f"{user},{item},{time}" for user, item, time in rows]
    path.write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    return path


@pytest.fixture(scope="session")
def repeat_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 users who take the same five items again and again."""
    random = np.random.default_rng(0)
    rows = []
    for user in range(120):
        own = random.choice(60, 5, replace=False)
        rows += [(f"u{user}", f"i{own[time % 5]}", time) for time in range(20)]
    return write_log(tmp_path_factory.mktemp("shop") / "log.csv", rows)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_evaluation_ranks_as_the_release_serves(repeat_shop, tmp_path, exclude_seen):
    settings = TINY | {"epochs": 5, "learning_rate": 0.02, "dim": 16}
    draft = fit(repeat_shop, tmp_path, FitConfig(**settings, exclude_seen=exclude_seen))
    build(draft)
    metrics = evaluate_release(draft, repeat_shop).metrics
    assert metrics["exclude_seen"] == exclude_seen
    assert metrics["repeated_items"] == metrics["held_out_items"] > 0
    release = open_release(draft)
    history = ["i1", "i2", "i3"]
    [answer] = release.retriever.recommend([Query(history, 50)])  # a request that does not say
    served = {release.retriever.catalog.id(row) for row in answer.rows.tolist()}
    if exclude_seen:
        assert metrics["recall@50"] == 0
        assert not served & {*history}
    else:
        assert metrics["recall@50"] > 0.9
        assert {*history} <= served


def test_the_validation_of_a_fit_is_told_with_the_switch(repeat_shop, tmp_path):
    draft = fit(repeat_shop, tmp_path, FitConfig(**TINY))
    validation = read_manifest(draft).metrics["validation"]
    assert (validation["exclude_seen"], validation["recall@50"]) == (1, 0)


def test_the_switch_can_be_set_for_one_evaluation(repeat_shop, tmp_path, run_command):
    draft = fit(repeat_shop, tmp_path, FitConfig(**TINY))
    metrics = [
        json.loads(run_command("evaluate", draft, repeat_shop, *words).stdout.splitlines()[-1])
        for words in ([], ["--exclude-seen", "false"])
    ]
    assert [m["exclude_seen"] for m in metrics] == [1, 0]
    assert metrics[0]["recall@50"] == 0 < metrics[1]["recall@50"]


@pytest.mark.parametrize("split", ["unseen-users", "sampled-99", "leave-one-out"])
def test_items_that_the_release_does_not_know_are_missed_and_counted(tmp_path, split):
    random = np.random.default_rng(0)
    items = {user: random.choice(40, 8, replace=False) for user in range(200)}
    rows = [(f"u{user}", f"i{items[user][n]}", n) for user in items for n in range(8)]
    known = write_log(tmp_path / "known.csv", rows)
    draft = fit(known, tmp_path, FitConfig(**TINY))
    before = evaluate_release(draft, known, split=split).metrics
    assert (before["unknown_items"], before["users"]) == (0, 20)
    # Everybody goes on with two items that came into the shop after the fit.
    rows += [(f"u{user}", f"new{(user + n) % 20}", 100 + n) for user in items for n in range(2)]
    grown = write_log(tmp_path / "grown.csv", rows)
    after = evaluate_release(draft, grown, split=split).metrics
    assert after["users"] == 20
    if split == "unseen-users":  # 8 of 10 items are shown, the two new ones are held out
        assert after["held_out_items"] == after["unknown_items"] == 40
    assert after["unknown_items"] == after["held_out_items"]
    assert after["recall@50"] == 0


def test_a_user_of_unknown_items_alone_counts(tmp_path, repeat_shop):
    draft = fit(repeat_shop, tmp_path, FitConfig(**TINY))
    text = repeat_shop.read_text()
    rows = [f"x{user},new{n},{n}" for user in range(400) for n in range(10)]
    grown = tmp_path / "grown.csv"
    grown.write_text("\n".join([text, *rows]))
    metrics = evaluate_release(draft, grown).metrics
    own = evaluate_release(draft, repeat_shop).metrics
    assert metrics["users"] > own["users"] + 20
    assert metrics["unknown_items"] == 2 * (metrics["users"] - own["users"])


def test_the_log_is_read_in_the_format_of_the_fit(tmp_path, planted, run_command):
    """A file that fits two formats, so that `auto` refuses it."""
    log = tmp_path / "ratings.csv"
    rng = np.random.default_rng(0)
    lines = [f"u{user},i{rng.integers(30)},5,{n}" for user in range(60) for n in range(8)]
    log.write_text("\n".join(lines))
    root = tmp_path / "root"
    words = [w for k, v in TINY.items() for w in (f"--{k.replace('_', '-')}", v)]
    ended = run_command("fit", log, "--root", root, "--format", "amazon-csv-2014", *words)
    assert ended.exit_code == 0, ended.stderr
    draft = ended.stdout.splitlines()[-1]
    ended = run_command("evaluate", draft, log)
    assert ended.exit_code == 0, ended.stderr
    metrics = json.loads(ended.stdout.splitlines()[-1])
    assert metrics["users"] == 6
    assert "trained on a log of" in metrics["trained_on"]
    assert metrics["trained_on"] in ended.stderr
    assert run_command("evaluate", draft, log, "--format", "auto").exit_code == 1

"""Popularity of the training part and of its last weeks, beside the metrics of a fit."""

import json
from pathlib import Path

import numpy as np
import pytest

from index.release.build import build
from index.release.errors import GateRefusal
from index.release.manifest import read_manifest
from index.release.publish import publish
from index.retrieval.catalog import Catalog
from tests.training.experiments.tiny import TINY
from training.config import FitConfig
from training.data.packed_log import PackedLog
from training.data.splits import split_users
from training.evaluation.popularity import popular_rows, popularity_metrics, recent_rows
from training.evaluation.protocols import EvaluationCase
from training.fitting.fit import fit, prepare_log

DAY = 86_400.0
NOW = 1.7e9


def log_of(rows: list[int], days_ago: list[float], unit: float = 1.0) -> PackedLog:
    """Of one user."""
    times = (NOW - np.array(days_ago) * DAY) * unit
    offsets = np.array([0, len(rows)])
    return PackedLog(np.array(rows, np.int32), offsets, times, np.array(["u"], object))


CATALOG = Catalog(list("abcd"), np.array([9, 8, 7, 6]), [None] * 4, [None] * 4)


@pytest.mark.parametrize("unit", [1.0, 1e3, 1e6])
def test_last_weeks_come_first_then_all_time(unit):
    log = log_of([1, 1, 1, 2, 2, 3, 4, 4], [90, 80, 70, 60, 50, 3, 2, 0], unit)
    assert popular_rows(log, CATALOG)[0] == 1
    assert recent_rows(log, CATALOG, 28) == [4, 3, 1, 2]
    assert recent_rows(log, CATALOG, 1) == [4, 1, 2, 3]
    assert recent_rows(log, CATALOG, None) is None


def test_a_log_without_times_has_no_last_weeks():
    log = log_of([1, 2], [0, 0])
    positions = PackedLog(log.rows, log.offsets, np.array([0.0, 1.0]), log.user_ids)
    assert recent_rows(positions, CATALOG, 28) is None
    metrics = popularity_metrics(positions, CATALOG, [EvaluationCase([1], [2])], True, 28)
    assert metrics.keys() == {"popular"}
    assert metrics["popular"]["recall@50"] == 1


def test_what_no_training_user_took_is_never_popular():
    assert popular_rows(log_of([2, 2, 9], [0, 0, 0]), CATALOG) == [2]  # 9 is not in the catalogue


@pytest.fixture(scope="module")
def draft(planted, tmp_path_factory):
    folder = fit(
        planted / "interactions.parquet",
        tmp_path_factory.mktemp("root"),
        FitConfig(**TINY | {"epochs": 1, "learning_rate": 1e-9}),
        planted / "items.parquet",
    )
    build(folder)
    return folder


def test_a_fit_stores_popularity_on_the_same_users(planted, draft):
    manifest = read_manifest(draft)
    config = FitConfig.from_stored(manifest.training)
    catalog, log, split, _ = prepare_log(planted / "interactions.parquet", None, config)
    train = log.take(split_users(log.user_ids, 0.1, 0).train)
    counts = np.bincount(train.rows, minlength=len(catalog) + 1)
    recalls = []
    for case in split.validation:
        allowed = [row for row in range(1, len(catalog) + 1) if row not in case.history]
        top = sorted(allowed, key=lambda row: -counts[row])[:20]
        recalls.append(len({*top} & {*case.relevant}) / len(case.relevant))
    stored = manifest.metrics["validation_popular"]
    assert stored["recall@20"] == pytest.approx(np.mean(recalls), abs=0.02)  # but for ties
    assert manifest.metrics["validation_recent"].keys() == stored.keys()
    assert "seen_kept/minor_recall@50" in stored


def test_a_first_release_below_popularity_is_refused_unless_forced(draft):
    metrics = read_manifest(draft).metrics
    assert metrics["validation"]["recall@50"] < metrics["validation_popular"]["recall@50"]
    with pytest.raises(GateRefusal) as refusal:
        publish(draft)
    assert "of popularity on the same users" in str(refusal.value)
    assert "of the popularity of the last weeks on the same users" in str(refusal.value)
    assert not (draft.parent.parent / "current").exists()
    assert publish(draft, force=True).name == draft.name


def test_an_evaluation_tells_popularity_beside_every_metric(planted, draft, run_command):
    log = planted / "interactions.parquet"
    result = run_command("evaluate", draft, log, "--part", "validation")
    assert result.exit_code == 0, result.stderr
    metrics = json.loads(result.stdout.splitlines()[-1])
    stored = read_manifest(draft).metrics
    for baseline in ("popular", "recent"):
        for name, value in stored[f"validation_{baseline}"].items():
            assert metrics[f"{baseline}/{name}"] == pytest.approx(value), name
    assert metrics["minor_recall@50"] == pytest.approx(stored["validation"]["minor_recall@50"])
    assert "categories" not in result.stderr


def test_without_the_training_part_the_counts_of_the_release_stand_for_it():
    nothing = log_of([1], [0]).take(np.array([], int))
    metrics = popularity_metrics(nothing, CATALOG, [EvaluationCase([1], [2])], True, 28)
    assert metrics.keys() == {"popular"}
    assert metrics["popular"]["ndcg@5"] == 1  # b, the most popular but a, which was seen


def test_a_fit_says_how_it_stands_to_popularity(planted, tmp_path, run_command):
    words = [w for k, v in TINY.items() for w in (f"--{k.replace('_', '-')}", v)]
    log = planted / "interactions.parquet"
    ended = run_command("fit", log, "--root", tmp_path, *words, "--learning-rate", 1e-9)
    assert ended.exit_code == 0, ended.stderr
    metrics = read_manifest(Path(ended.stdout.splitlines()[-1])).metrics
    popular = metrics["validation_popular"]["recall@50"]
    recent = metrics["validation_recent"]["recall@50"]
    expected = f"popularity's: {popular:.4f} of all time, {recent:.4f} of the last 28 days"
    assert expected in ended.stderr
    assert "it is below popularity: `publish` refuses it" in ended.stderr
    assert "the items have no categories" in ended.stderr
    assert "minor_recall@50" not in metrics["validation"]

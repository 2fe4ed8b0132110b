"""A release is measured on what it was not trained on, and says what that is."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index.release.manifest import read_manifest, write_manifest
from training.config import FitConfig
from training.data.errors import LogError
from training.data.splits import split_users
from training.evaluation.evaluate import evaluate_release
from training.fitting.fit import fit

TINY: dict[str, Any] = {
    "dim": 8,
    "interests": 2,
    "hidden": 8,
    "negatives": 20,
    "epochs": 1,
    "history": 6,
}


@pytest.fixture
def log(planted: Path) -> Path:
    return planted / "interactions.parquet"


@pytest.fixture(scope="session")
def draft_of(planted: Path, tmp_path_factory: pytest.TempPathFactory):
    """Makes a draft of the planted log; for equal settings only once."""
    drafts: dict[str, Path] = {}

    def draft(**settings: Any) -> Path:
        key = repr(settings)
        if key not in drafts:
            config = FitConfig(**TINY, **settings)
            root = tmp_path_factory.mktemp("root")
            drafts[key] = fit(planted / "interactions.parquet", root, config)
        return drafts[key]

    return draft


def write(path: Path, table: pa.Table) -> Path:
    pq.write_table(table, path)
    return path


def trained_users(log: Path) -> set[str]:
    ids = np.unique(pq.read_table(log)["user_id"].to_numpy(zero_copy_only=False))
    return set(ids[split_users(ids).train])


@pytest.mark.parametrize("split", ["unseen-users", "leave-one-out", "sampled-99", "temporal"])
def test_the_fit_s_own_log_is_measured_as_in_the_fit(draft_of, log, split):
    draft = draft_of(split=split)
    metrics, trained_on = evaluate_release(draft, log, "validation")
    stored = read_manifest(draft).metrics["validation"]
    assert metrics["users"] == stored["users"]
    assert metrics["recall@20"] == pytest.approx(stored["recall@20"])
    assert evaluate_release(draft, log, "test").metrics["users"] > 0
    assert f"{draft.name} was trained on a log of" in trained_on


def test_users_that_were_trained_on_are_not_measured(draft_of, log, tmp_path):
    """In a log of these users alone, there is nothing to measure, whatever its own split says."""
    table = pq.read_table(log)
    seen = pa.array(sorted(trained_users(log)))
    only_seen = table.filter(pa.compute.is_in(table["user_id"], seen))
    with pytest.raises(LogError, match=r"was trained on a log of .*nothing in the log is left"):
        evaluate_release(draft_of(), write(tmp_path / "seen.parquet", only_seen))


@pytest.mark.parametrize("split", ["leave-one-out", "sampled-99", "temporal"])
def test_another_protocol_is_measured_on_the_held_out_users(draft_of, log, split):
    metrics = evaluate_release(draft_of(), log, split=split).metrics
    assert 0 < metrics["users"] <= 30  # a tenth of the 300


@pytest.mark.parametrize("split", ["leave-one-out", "temporal"])
def test_a_protocol_that_would_measure_what_was_trained_on_is_refused(draft_of, log, split):
    with pytest.raises(LogError, match="split unseen-users: it would measure what was trained on"):
        evaluate_release(draft_of(split=split), log, split="unseen-users")


def test_last_items_of_another_log_are_not_taken_for_unseen(draft_of, log, tmp_path):
    table = pq.read_table(log)
    times = table["timestamp"].to_numpy()
    shorter = table.filter(pa.array(times < np.quantile(times, 0.8)))
    with pytest.raises(LogError, match="nothing in the log is left"):
        evaluate_release(draft_of(split="leave-one-out"), write(tmp_path / "s.parquet", shorter))


def test_a_release_that_does_not_say_is_measured_on_its_own_log_or_what_is_later(
    draft_of, log, tmp_path
):
    draft = draft_of(seed=1)
    manifest = read_manifest(draft)
    settings = {k: v for k, v in manifest.training.items() if not k.startswith("unseen_")}
    expected = evaluate_release(draft, log).metrics
    write_manifest(draft, manifest.model_copy(update={"training": settings}))
    assert evaluate_release(draft, log).metrics == expected
    table = pq.read_table(log)
    times = table["timestamp"].to_numpy()
    part = table.filter(pa.array(times < np.quantile(times, 0.9)))
    with pytest.raises(LogError, match="nothing in the log is left"):
        evaluate_release(draft, write(tmp_path / "part.parquet", part))
    later = table.set_column(2, "timestamp", pa.array(table["timestamp"].to_numpy() + 3 * 10**7))
    grown = write(tmp_path / "grown.parquet", pa.concat_tables([table, later]))
    assert evaluate_release(draft, grown).metrics["users"] == 300

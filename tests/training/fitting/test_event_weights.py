"""Fits of a log whose events are of two types."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index.release.manifest import read_manifest
from training.config import FitConfig
from training.data.examples import Positions
from training.fitting.fit import prepare_log
from training.fitting.trainer import FitResult, Trainer

SMALL = {"encoder": "sasrec", "dim": 16, "interests": 1, "hidden": 16, "negatives": 50, "epochs": 1}


@pytest.fixture
def log(planted: Path, tmp_path: Path) -> Path:
    """Every third event is a purchase, the others are views."""
    rows = pq.read_table(planted / "interactions.parquet")
    kinds = np.where(np.arange(len(rows)) % 3, "view", "purchase")
    path = tmp_path / "log.parquet"
    pq.write_table(rows.append_column("event", pa.array(kinds)), path)
    return path


def trained(log: Path, folder: Path, positions: Positions, weights: tuple[str, ...]) -> FitResult:
    config = FitConfig.model_validate({**SMALL, "positions": positions, "event_weights": weights})
    data = prepare_log(log, None, config)
    folder.mkdir()
    return Trainer(config, data.catalog, data.split, folder).run()


@pytest.mark.parametrize("positions", ["last", "all"])
def test_a_weight_of_1_for_all_is_none_and_another_is_another_fit(
    log: Path, tmp_path: Path, positions: Positions
) -> None:
    plain = trained(log, tmp_path / "plain", positions, ())
    ones = trained(log, tmp_path / "ones", positions, ("purchase=1", "view=1"))
    other = trained(log, tmp_path / "other", positions, ("view=0.1",))
    assert np.array_equal(plain.vectors, ones.vectors)
    assert plain.metrics == ones.metrics
    assert plain.history[0]["losses"] == ones.history[0]["losses"]
    assert not np.allclose(plain.vectors, other.vectors)
    assert plain.history[0]["examples"] == other.history[0]["examples"]


def test_what_has_weight_0_is_neither_learnt_nor_to_be_found(log: Path, run_command) -> None:
    options = ["--dim", 16, "--interests", 1, "--epochs", 1, "--min-user-interactions", 3]
    fit = ["fit", log, "--root", log.parent / "root", *options]
    weighted = run_command(*fit, "--event-weights", "view=0,purchase=1")
    assert weighted.exit_code == 0, weighted.stderr
    draft = Path(weighted.stdout.splitlines()[-1])
    training = read_manifest(draft).training
    assert training["event_weights"] == ["purchase=1.0", "view=0.0"]
    ended = run_command("evaluate", draft, log)
    assert ended.exit_code == 0, ended.stderr
    purchases = json.loads(ended.stdout.splitlines()[-1])
    ended = run_command("evaluate", draft, log, "--event-weights", "view=1")
    everything = json.loads(ended.stdout.splitlines()[-1])
    assert 0 < purchases["held_out_items"] < 0.6 * everything["held_out_items"]
    assert purchases["users"] < everything["users"]


def test_compare_takes_them_and_a_misspelt_type_is_refused(log: Path, run_command) -> None:
    compare = ["compare", log, "--encoders", "pop", "--seeds", 1, "--out", log.parent / "runs"]
    ended = run_command(*compare, "--event-weights", "veiw=0.2,prchase=1")
    assert ended.exit_code == 1
    assert "have an event type of prchase, veiw; they are purchase, view" in ended.stderr
    ended = run_command(*compare, "--event-weights", "view=0")
    assert ended.exit_code == 0, ended.stderr

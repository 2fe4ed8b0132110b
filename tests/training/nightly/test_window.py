"""A window with too few events, and one of several event types."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from index.release.manifest import read_manifest, write_manifest
from tests.training.nightly.nightly_runs import (
    FIRST_END,
    config_of,
    live_release,
    read_report,
    replace_events,
)
from training.data.array_store import MappedArray
from training.data.event_window import DAY_S
from training.nightly.run import run_nightly
from training.nightly.window import WINDOW, hold_out_day, read_new_window, read_window_log


def test_an_empty_day_is_nothing_new(folder):
    before = live_release(folder)
    outcome = run_nightly(config_of(folder, until=FIRST_END + DAY_S / 8))
    assert outcome.exit_code == 4
    assert "users to compare on, where 10 are needed" in outcome.sentence
    shutil.rmtree(folder / "events")
    outcome = run_nightly(config_of(folder))
    assert "no event is in the window" in outcome.sentence
    assert live_release(folder) == before


def set_last(folder: Path, last: float) -> None:
    """Let the live release say that it was trained on events up to then."""
    release = folder / "root" / "releases" / live_release(folder)
    manifest = read_manifest(release)
    data = manifest.data.model_copy(update={"last": last})
    write_manifest(release, manifest.model_copy(update={"data": data}))


@pytest.mark.parametrize("last", [4_070_908_800.0, 1000 * (FIRST_END - 1), 1e17])
def test_what_live_has_seen_is_not_spoilt_by_one_time_in_the_future(folder, last):
    """Of a row dated 2099 in its log, or of a log in another unit."""
    before = live_release(folder)
    set_last(folder, last)
    outcome = run_nightly(config_of(folder))
    assert outcome.live == before
    assert outcome.outcome in ("published", "refused"), outcome.sentence
    assert "nothing-new" not in outcome.sentence


def test_a_live_release_in_another_unit_is_continued_where_it_ended(folder):
    set_last(folder, 1000 * (FIRST_END - 1))
    outcome = run_nightly(config_of(folder))
    assert outcome.outcome == "published", outcome.sentence
    manifest = read_manifest(folder / "root" / "releases" / live_release(folder))
    assert manifest.data.last < 1e11


def test_event_types_of_weight_0_are_neither_learnt_nor_to_be_found(folder, log, tmp_path):
    is_view = np.arange(len(log)) % 3 > 0
    kinds = pa.array(np.where(is_view, "view", "purchase"))
    replace_events(folder, log.append_column("event", kinds))
    plain = config_of(folder, cold=True, refit_epochs=0, fit={"epochs": 1})
    weights = {"epochs": 1, "event_weights": {"view": 0, "purchase": 2}}
    weighted = config_of(folder, cold=True, refit_epochs=0, fit=weights)
    judges = []
    for number, config in enumerate((plain, weighted)):
        window = tmp_path / f"window-{number}"
        window.mkdir()
        live = read_new_window(config, window)["live"]
        judges.append(hold_out_day(config, window / WINDOW, live)["judges"])
    assert 0 < judges[1] < judges[0]
    outcome = run_nightly(weighted)
    assert outcome.outcome in ("published", "refused"), outcome.sentence
    epoch = read_report(folder, outcome)["steps"]["fit"]["history"][0]
    assert 0 < epoch["examples"] <= (~is_view).sum()


def test_both_engines_give_the_same_window_and_held_out_day(folder, tmp_path):
    pytest.importorskip("duckdb")
    results, contents = [], []
    for engine in ("memory", "duckdb"):
        config = config_of(folder, fit={"log_engine": engine, "spill_directory": tmp_path})
        window = tmp_path / engine
        window.mkdir()
        live = read_new_window(config, window)["live"]
        contents.append((window / WINDOW).read_bytes())
        results.append(hold_out_day(config, window / WINDOW, live))
        log = read_window_log(config, window / WINDOW)
        assert isinstance(log.items, MappedArray) == (engine == "duckdb")
    assert results[0] == results[1]
    assert contents[0] == contents[1]

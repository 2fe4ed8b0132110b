"""Interrupted and abandoned runs."""

import json

import pyarrow as pa
import pytest

from index.release.publish import rollback
from tests.training.nightly.nightly_runs import (
    SECOND_END,
    Killed,
    config_of,
    export,
    kill_before,
    live_release,
    raise_killed,
    unfinished_run,
)
from training.nightly.run import run_nightly


def test_a_rolled_back_release_is_not_published_again_when_its_run_continues(folder, monkeypatch):
    before = live_release(folder)
    monkeypatch.setattr("training.nightly.run._report", raise_killed)
    with pytest.raises(Killed):
        run_nightly(config_of(folder))
    assert live_release(folder) != before
    rollback(folder / "root")
    monkeypatch.undo()
    outcome = run_nightly(config_of(folder))
    assert outcome.outcome == "nothing-new"
    assert "since this run was published" in outcome.sentence
    assert live_release(folder) == before


def test_an_interrupted_run_continues_with_the_data_it_began_with(folder, log):
    kill_before(folder, "judge")
    late = log.slice(0, 1).set_column(2, "timestamp", pa.array([int(SECOND_END) - 1]))
    export(late, folder / "events" / "date=later")
    (file,) = (folder / "events" / "date=later").rglob("*.parquet")
    file.rename(folder / "events" / "date=later" / "part-0.parquet")
    unfinished = unfinished_run(folder)
    assert run_nightly(config_of(folder)).night == unfinished.name


def test_an_interrupted_run_with_other_settings_is_abandoned(folder):
    kill_before(folder, "judge")
    unfinished = unfinished_run(folder)
    outcome = run_nightly(config_of(folder, refit_epochs=2))
    assert outcome.outcome == "published"
    assert outcome.night != unfinished.name
    assert json.loads((unfinished / "state.json").read_text())["ended"]["outcome"] == "given up"
    assert not (unfinished / "fit").exists()


def test_an_abandoned_run_starts_from_the_beginning(folder):
    kill_before(folder, "build")
    unfinished = unfinished_run(folder)
    messages: list[str] = []
    outcome = run_nightly(config_of(folder, resume_h=0), messages.append)
    assert outcome.outcome == "published", outcome.sentence
    assert outcome.night == unfinished.name
    assert messages[:2] == ["read", "fit"]


def test_an_unreadable_record_blocks_no_run(folder):
    kill_before(folder, "judge")
    unfinished = unfinished_run(folder)
    (unfinished / "state.json").write_text("")
    assert run_nightly(config_of(folder)).outcome == "published"

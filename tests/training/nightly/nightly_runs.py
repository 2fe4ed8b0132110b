"""Nightly runs on a synthetic log, for the tests of this folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index.release.reading import open_release, read_current
from training.data.event_window import DAY_S
from training.nightly.config import NightConfig
from training.nightly.outcome import Outcome
from training.nightly.run import run_nightly
from training.nightly.run_folders import RUNS

FIT = {"dim": 16, "interests": 2, "hidden": 16, "negatives": 100, "epochs": 6, "batch_size": 64}
SETTINGS = {"metric": "recall@20", "holdout_days": 12, "min_holdout_users": 10, "plots": False}
LOG_START = 1_735_689_600
FIRST_END = LOG_START + 100 * DAY_S  # the end of the first run's window
SECOND_END = LOG_START + 112 * DAY_S


class Killed(BaseException):
    """Simulates a kill: no code catches it."""


def raise_killed(*_: object) -> None:
    raise Killed


def export(table: pa.Table, events: Path) -> None:
    days = table["timestamp"].to_numpy() // 86_400
    for day in np.unique(days):
        folder = events / f"date={np.datetime64(int(day), 'D')}"
        folder.mkdir(parents=True)
        pq.write_table(table.filter(pa.array(days == day)), folder / "part-0.parquet")


def replace_events(folder: Path, log: pa.Table) -> None:
    shutil.rmtree(folder / "events")
    export(log, folder / "events")


def config_of(folder: Path, until: float = SECOND_END, **settings: Any) -> NightConfig:
    fit = {**FIT, **settings.pop("fit", {})}
    warm = {"epochs": 1, **settings.pop("warm", {})}
    required = {"root": folder / "root", "events": folder / "events", "until": until}
    return NightConfig(**{**SETTINGS, **required, **settings, "fit": fit, "warm": warm})


def live_release(folder: Path) -> str:
    """The id of the live release, which can be opened."""
    current = read_current(folder / "root")
    assert current is not None
    return open_release(folder / "root" / "releases" / current).id


def run_folder(folder: Path, outcome: Outcome) -> Path:
    assert outcome.night is not None
    return folder / "root" / RUNS / outcome.night


def read_report(folder: Path, outcome: Outcome) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((run_folder(folder, outcome) / "report.json").read_text())
    return report


def read_page(folder: Path, outcome: Outcome) -> str:
    return (run_folder(folder, outcome) / "report.md").read_text()


def unfinished_run(folder: Path) -> Path:
    (unfinished,) = (p for p in (folder / "root" / RUNS).iterdir() if (p / "fit").exists())
    return unfinished


def kill_before(folder: Path, step: str) -> None:
    """Kill the second run just before a step."""

    def on_message(text: str) -> None:
        if text == step:
            raise Killed

    with pytest.raises(Killed):
        run_nightly(config_of(folder), on_message)


def assert_rejected(folder: Path, outcome: Outcome, before: str, *sentences: str) -> None:
    assert outcome.outcome == "refused", outcome.sentence
    assert "\n" not in outcome.sentence
    for sentence in sentences:
        assert sentence in outcome.sentence
    assert live_release(folder) == before
    assert outcome.sentence in read_page(folder, outcome)

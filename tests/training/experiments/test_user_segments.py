"""Metrics by user segment."""

import numpy as np
import pytest

from tests.training.experiments.tiny import TINY
from training.experiments.compare import compare
from training.experiments.runner import ExperimentRunner
from training.experiments.user_segments import segment_table


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

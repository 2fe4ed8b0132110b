"""A runner on the planted log."""

from pathlib import Path

import pytest

from training.experiments.runner import ExperimentRunner


@pytest.fixture
def runner(planted: Path, tmp_path: Path) -> ExperimentRunner:
    return ExperimentRunner(planted / "interactions.parquet", tmp_path / "runs", lambda text: None)

"""A log and the folder after its first nightly run."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.nightly.nightly_runs import FIRST_END, config_of, export
from training.data.synthetic import write_synthetic
from training.nightly.outcome import Outcome
from training.nightly.run import run_nightly


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = tmp_path_factory.mktemp("log")
    write_synthetic(folder, users=300, items=150, seed=1)
    return pq.read_table(folder / "interactions.parquet")


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory, log: pa.Table) -> tuple[Path, Outcome]:
    """A folder with events and the root after the first run; and how that run ended."""
    folder = tmp_path_factory.mktemp("first")
    export(log, folder / "events")
    return folder, run_nightly(config_of(folder, until=FIRST_END, plots=True))


@pytest.fixture
def folder(first_run: tuple[Path, Outcome], tmp_path: Path) -> Path:
    """A copy of the folder after the first run, which a test may change."""
    return Path(shutil.copytree(first_run[0], tmp_path / "copy"))

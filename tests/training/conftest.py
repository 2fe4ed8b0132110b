"""A small log with planted interests, fitted once."""

from pathlib import Path

import pytest

from training.data.synthetic import write_synthetic


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with interactions.parquet and items.parquet."""
    folder = tmp_path_factory.mktemp("planted")
    write_synthetic(folder, users=300, items=200, seed=1)
    return folder

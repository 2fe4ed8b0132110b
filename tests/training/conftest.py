"""A small log with planted interests, and the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from training.__main__ import main
from training.data.synthetic import write_synthetic


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with interactions.parquet and items.parquet."""
    folder = tmp_path_factory.mktemp("planted")
    write_synthetic(folder, users=300, items=200, seed=1)
    return folder


class Ended(NamedTuple):
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def run_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run `python -m training` with these arguments, in this process."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        code: object = None
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code
        return Ended(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run

"""Arrays in memory and in files: written in parts, read in blocks."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training.data import array_store
from training.data.array_store import (
    MEMORY,
    ArrayStore,
    MappedArray,
    SpillFolder,
    blocks,
    collect,
    compress,
    counts_of,
)


@pytest.fixture(params=["memory", "files"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArrayStore:
    return MEMORY if request.param == "memory" else SpillFolder(tmp_path)


def test_parts_become_one_array(store: ArrayStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_store, "BLOCK", 3)
    parts = [np.arange(4), np.arange(0), np.arange(5, 2, -1)]
    array = collect(store, np.int32, parts)
    assert array.dtype == np.int32
    assert array.tolist() == [0, 1, 2, 3, 5, 4, 3]
    assert isinstance(array, MappedArray) == (store is not MEMORY)
    assert compress(store, array, array > 2).tolist() == [3, 5, 4, 3]
    assert counts_of(array, 7).tolist() == [1, 1, 1, 2, 1, 1, 0]
    assert [part.tolist() for (part,) in blocks(array)] == [[0, 1, 2], [3, 5, 4], [3]]


def test_there_may_be_nothing(store: ArrayStore) -> None:
    empty = collect(store, np.float64, [])
    assert (empty.dtype, empty.tolist()) == (np.float64, [])
    assert list(blocks(empty)) == []
    assert counts_of(np.empty(0, np.int32), 2).tolist() == [0, 0]


def test_another_process_opens_the_file_and_gets_parts_by_value(tmp_path: Path) -> None:
    array = collect(SpillFolder(tmp_path), np.int64, [np.arange(100_000)])
    sent = pickle.dumps(array)
    assert len(sent) < 1000
    received = pickle.loads(sent)
    assert isinstance(received, MappedArray)
    assert np.array_equal(received, array)
    assert pickle.loads(pickle.dumps(array[3:6])).tolist() == [3, 4, 5]


def test_files_are_read_only_and_live_as_long_as_an_array(tmp_path: Path) -> None:
    array = collect(SpillFolder(tmp_path), np.int64, [np.arange(10)])
    part = array[2:5]
    del array
    assert len([*tmp_path.iterdir()]) == 1
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 1
    del part
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_is_in_use_is_not_abandoned(tmp_path: Path) -> None:
    array = collect(SpillFolder(tmp_path), np.int64, [np.arange(10)])
    SpillFolder(tmp_path)
    assert Path(str(array.filename)).exists()  # type: ignore[attr-defined]


def test_the_exit_of_a_fork_leaves_the_files(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from training.data.array_store import *\n"
        "folder = SpillFolder(Path(sys.argv[1]))\n"
        "if child := os.fork():\n"
        "    os.waitpid(child, 0); print(folder.path.exists())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == "True\n"
    assert [*tmp_path.iterdir()] == []

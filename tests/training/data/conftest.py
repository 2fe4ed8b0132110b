"""Log files to read, and logs to and from rows."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data.array_store import SpillFolder
from training.data.database_rows import DatabaseRows
from training.data.interactions import Interactions
from training.data.row_collection import MemoryRows, RowCollection

Row = tuple[str, str, float]  # user id, item id, time


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes content to a file, log.csv by default, and returns its path."""

    def write_file(content: str | bytes, name: str = "log.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


@pytest.fixture
def write_parquet() -> Callable[..., Path]:
    """Writes columns to a Parquet file, and the folders above it, and returns its path."""

    def write_columns(path: Path, **columns: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)
        return path

    return write_columns


@pytest.fixture(scope="session")
def log_of() -> Callable[[list[Row]], Interactions]:
    """Makes a log of rows, from id tables in order of first appearance with one unused id."""

    def log(rows: list[Row]) -> Interactions:
        users = [*dict.fromkeys(row[0] for row in rows), "unused user"]
        items = [*dict.fromkeys(row[1] for row in rows), "unused item"]
        return Interactions.from_rows(
            np.array([users.index(row[0]) for row in rows], dtype=np.int32),
            np.array([items.index(row[1]) for row in rows], dtype=np.int32),
            np.array([row[2] for row in rows]),
            np.array(users, dtype=object),
            np.array(items, dtype=object),
        )

    return log


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Interactions], list[Row]]:
    """Gives the user id, item id and time of each interaction, in order."""

    def rows(log: Interactions) -> list[Row]:
        return list(
            zip(log.user_ids[log.users], log.item_ids[log.items], log.times.tolist(), strict=True)
        )

    return rows


class BothEngines:
    """Collects the rows in memory, and again in DuckDB; both have to give the same."""

    def __init__(self, make: Callable[[], RowCollection]) -> None:
        self._memory, self._make_other = MemoryRows(), make
        self._blocks: list[tuple[Any, ...]] = []

    def add(self, *block: Any) -> None:
        self._memory.add(*block)
        self._blocks.append(block)

    def __len__(self) -> int:
        return len(self._memory)

    def to_interactions(self, weights: Mapping[str, float] | None) -> Interactions:
        log, rows = self._memory.to_interactions(weights), self._make_other()
        for block in self._blocks:
            rows.add(*block)
        assert len(rows) == len(self)
        other = rows.to_interactions(weights)
        for one, same in zip(_columns(log), _columns(other), strict=True):
            assert one.dtype == same.dtype
            assert one.tolist() == same.tolist()
        return log


def _columns(log: Interactions) -> list[Any]:
    columns = [log.items, log.times, log.offsets, log.user_ids, log.item_ids]
    return [*columns, np.array([log.duplicates]), *(log.events or ())]


@pytest.fixture
def both_engines(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every log that the test reads is read by both engines, which have to agree."""
    pytest.importorskip("duckdb")
    folder = tmp_path_factory.mktemp("spill")
    monkeypatch.setattr(
        "training.data.readers.open_collection",
        lambda *_: BothEngines(lambda: DatabaseRows(SpillFolder(folder), 1 << 29)),
    )

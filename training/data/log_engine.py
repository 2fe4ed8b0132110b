"""Where a log is sorted and filtered: in memory, or by DuckDB where it would not fit there."""

from pathlib import Path

import pyarrow.parquet as pq

from training.data import database
from training.data.array_store import SpillFolder
from training.data.columns import Format
from training.data.compression import head_lines, is_compressed
from training.data.database_rows import DatabaseRows
from training.data.errors import PARQUET_ERRORS, LogError, invalid_parquet
from training.data.event_files import event_files
from training.data.interactions import Interactions
from training.data.log_files import open_files
from training.data.log_options import LogSource
from training.data.matching import warn
from training.data.memory import available_memory
from training.data.parquet import Parquet
from training.data.paths import to_open
from training.data.row_collection import MemoryRows, RowCollection
from training.data.window_rows import DatabaseWindow, MemoryWindow, WindowRows

_ROW_BYTES = 150  # of memory at the peak, for each row of a log that is read into it
_WINDOW_ROW_BYTES = 400  # the same of a window, whose rows hold their ids as text
_EVENT_BYTES = 16  # of a file, for each of its events
_COMPRESSION = 5  # of text
_SHARE = 0.8  # of the free memory that a log may take


def open_collection(path: Path, source: LogSource) -> RowCollection:
    """For the rows of a log. Raises LogError if DuckDB is needed and not installed, or if a file
    cannot be read."""
    if source.log_engine == "auto":
        rows = sum(_estimated_rows(file, format) for file, format in open_files(path, source))
        in_memory = _fits(path, rows, _ROW_BYTES, source)
    else:
        in_memory = source.log_engine == "memory"
    return MemoryRows() if in_memory else DatabaseRows(_open_folder(source), _limit(source))


def open_window(events: Path, base: Interactions | None, source: LogSource) -> WindowRows:
    """For the rows of a base log and of the event files after it. Raises LogError as above."""
    if source.log_engine == "auto":
        size = sum(file.stat().st_size for file in event_files(events))
        rows = size // _EVENT_BYTES + (0 if base is None else len(base))
        in_memory = _fits(events, rows, _WINDOW_ROW_BYTES, source)
    else:
        in_memory = source.log_engine == "memory"
    return MemoryWindow() if in_memory else DatabaseWindow(_open_folder(source), _limit(source))


def _fits(path: Path, rows: int, row_bytes: int, source: LogSource) -> bool:
    """Whether the rows are to be in memory: they fit, or there is nowhere else."""
    limit, size = _limit(source), rows * row_bytes
    if size > limit and not database.is_installed():
        warn(
            f"{path}: about {rows:,} rows, which may take {size / 1e9:.1f} GB, where "
            f"{limit / 1e9:.1f} GB are free; if memory does not suffice, install DuckDB with: "
            "pip install 're4[large-logs]'"
        )
        return True
    return size <= limit


def _limit(source: LogSource) -> int:
    return source.memory_limit or int(available_memory() * _SHARE)


def _open_folder(source: LogSource) -> SpillFolder:
    folder = source.spill_directory
    if folder is not None and not folder.is_dir():
        raise LogError(f"{folder}: no such folder; create it, or name another spill_directory")
    return SpillFolder(folder)


def _estimated_rows(path: Path, format: Format) -> int:
    if isinstance(format, Parquet):
        try:
            with pq.ParquetFile(to_open(path)) as parquet:
                return int(parquet.metadata.num_rows)
        except PARQUET_ERRORS as error:
            raise invalid_parquet(path, error) from error
    lines = head_lines(path)
    size = path.stat().st_size * (_COMPRESSION if is_compressed(path) else 1)
    return size * len(lines) // sum(len(line) + 1 for line in lines)

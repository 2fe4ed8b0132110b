"""Where a log is sorted and filtered: in memory, or by DuckDB where it would not fit there."""

from pathlib import Path

import pyarrow.parquet as pq

from training.data import database
from training.data.array_store import SpillFolder
from training.data.columns import Format
from training.data.compression import head_lines, is_compressed
from training.data.database_rows import DatabaseRows
from training.data.errors import PARQUET_ERRORS, LogError, invalid_parquet
from training.data.log_files import open_files
from training.data.log_options import LogSource
from training.data.matching import warn
from training.data.memory import available_memory
from training.data.parquet import Parquet
from training.data.row_collection import MemoryRows, RowCollection

_ROW_BYTES = 150  # of memory at the peak, for each row of a log that is read into it
_COMPRESSION = 5  # of text
_SHARE = 0.8  # of the free memory that a log may take


def open_collection(path: Path, source: LogSource) -> RowCollection:
    """Raises LogError if DuckDB is needed and not installed, or if a file cannot be read."""
    limit = source.memory_limit or int(available_memory() * _SHARE)
    if source.log_engine == "memory":
        return MemoryRows()
    if source.log_engine == "auto":
        rows = sum(_estimated_rows(file, format) for file, format in open_files(path, source))
        if rows * _ROW_BYTES <= limit:
            return MemoryRows()
        if not database.is_installed():
            warn(
                f"{path}: about {rows:,} rows, which may take {rows * _ROW_BYTES / 1e9:.1f} GB, "
                f"where {limit / 1e9:.1f} GB are free; if memory does not suffice, install DuckDB "
                "with: pip install 're4[large-logs]'"
            )
            return MemoryRows()
    folder = source.spill_directory
    if folder is not None and not folder.is_dir():
        raise LogError(f"{folder}: no such folder; create it, or name another spill_directory")
    return DatabaseRows(SpillFolder(folder), limit)


def _estimated_rows(path: Path, format: Format) -> int:
    if isinstance(format, Parquet):
        try:
            with path.open("rb") as file, pq.ParquetFile(file) as parquet:
                return int(parquet.metadata.num_rows)
        except PARQUET_ERRORS as error:
            raise invalid_parquet(path, error) from error
    lines = head_lines(path)
    size = path.stat().st_size * (_COMPRESSION if is_compressed(path) else 1)
    return size * len(lines) // sum(len(line) + 1 for line in lines)

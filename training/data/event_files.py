"""The exported event files, read into tables of one schema and checked."""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.data.errors import PARQUET_ERRORS, LogError, invalid_parquet, require_column
from training.data.id_encoding import MAX_ID_BYTES
from training.data.matching import check_matches

FORGET = "forget"  # the event of a tombstone: all earlier rows of its user are deleted
REQUIRED_COLUMNS = ["user_id", "item_id", "timestamp"]
_TABLE_ROWS = 1 << 18
_TEXT_COLUMNS = ("user_id", "item_id", "event", "event_id", "entry")
SCHEMA = pa.schema([*((name, pa.string()) for name in _TEXT_COLUMNS), ("timestamp", pa.float64())])


def read_event_files(folder: Path) -> Iterator[pa.Table]:
    """The rows of all files, in order of date, then file name; of some files at a time.

    Warns of files that lie elsewhere in the folder and are not read. Raises LogError for a damaged
    file, or if all files lie elsewhere.
    """
    files = event_files(folder)
    others = {*filter(_is_data, folder.rglob("*"))} - {*files}
    if others:
        check_matches(
            folder,
            len(files),
            len(files) + len(others),
            "files are in date=YYYY-MM-DD folders and Parquet",
            f"the others are not read, such as {min(others)}; move them there",
            little=1.0,
        )
    tables: list[pa.Table] = []
    for file in files:
        tables.append(read_event_file(file))
        if sum(map(len, tables)) >= _TABLE_ROWS:
            yield pa.concat_tables(tables)
            tables.clear()
    if tables:
        yield pa.concat_tables(tables)


def is_in(column: pa.ChunkedArray, values: Collection[str]) -> NDArray[np.bool_]:
    """(n,): the rows whose value is one of these; null is none."""
    matches: NDArray[np.bool_] = pc.is_in(column, pa.array(values, pa.string())).to_numpy()
    return matches


def event_files(folder: Path) -> list[Path]:
    """In order of date, then name; files that begin with a dot or an underscore are unfinished."""
    return [path for path in sorted(folder.glob("date=*/*.parquet")) if _is_data(path)]


def _is_data(path: Path) -> bool:
    return path.name[0] not in "._" and path.is_file()


def read_event_file(path: Path) -> pa.Table:
    """Raises LogError for a damaged file."""
    try:
        with pq.ParquetFile(path) as file:
            raw = file.read()
    except PARQUET_ERRORS as error:
        raise invalid_parquet(path, error) from error
    for name in REQUIRED_COLUMNS:
        require_column(path, raw.column_names, name)
    try:
        columns = [_column(raw, name) for name in SCHEMA.names]
    except pa.ArrowException as error:
        raise LogError(f"{path}: a column cannot be read ({error}); export it again") from error
    rows = pa.table(columns, schema=SCHEMA)
    _check_rows(path, rows)
    return rows


def _column(raw: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in raw.column_names:
        return pa.chunked_array([pa.nulls(len(raw), pa.string())])
    column = raw[name]
    if pa.types.is_timestamp(column.type):
        return pc.divide(column.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.float64()), 1e6)
    return column.cast(SCHEMA.field(name).type)


def _check_rows(path: Path, rows: pa.Table) -> None:
    times = rows["timestamp"].to_numpy()
    needs_item = ~is_in(rows["event"], [FORGET])
    invalid = ~np.isfinite(times) | ~_is_id(rows["user_id"])
    invalid |= needs_item & ~_is_id(rows["item_id"])
    if invalid.any():
        row = int(np.argmax(invalid))
        raise LogError(
            f"{path}, row {row + 1:,}: user_id and item_id of 1 to {MAX_ID_BYTES} bytes, and a "
            f"timestamp, are needed, and it has {rows.slice(row, 1).to_pylist()[0]!s:.300}; export "
            "it again"
        )


def _is_id(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    sizes = pc.fill_null(pc.binary_length(column), 0).to_numpy()
    valid: NDArray[np.bool_] = (sizes > 0) & (sizes <= MAX_ID_BYTES)
    return valid

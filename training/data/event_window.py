"""What a night reads: a base log and the event files after it, without what was forgotten, sent
twice, not asked for, or outside the window."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.data.compression import PARQUET_ERRORS, need_column, not_parquet
from training.data.interactions import Interactions, LogError
from training.data.log_options import LogOptions
from training.data.readers import MAX_ID_BYTES, read_log

FORGET = "forget"
DAY_S = timedelta(days=1).total_seconds()
_TEXTS = ("user_id", "item_id", "event", "event_id", "entry")
_SCHEMA = pa.schema([*((name, pa.string()) for name in _TEXTS), ("timestamp", pa.float64())])
T = TypeVar("T", np.float64, np.int64)
_KEPT = ["user_id", "item_id", "timestamp"]


class Window(NamedTuple):
    """rows: user_id, item_id, timestamp in Unix seconds, in order of time, then of arrival.

    counts: rows of the base log and of the event files, those left out by reason, those kept.
    """

    rows: pa.Table
    counts: dict[str, int]


def read_window(
    events: Path,
    log: Path | None,
    config: LogOptions,
    kinds: tuple[str, ...],
    days: float | None,
    until: float,
) -> Window:
    """What came before `until`, of the last `days` of it; none is all.

    config: how the base log is read. A row whose event is `forget` takes with it all rows of its
    user that came earlier, by their time, their place, or their entry in the stream. Raises
    LogError for a damaged file.
    """
    base = _SCHEMA.empty_table()
    if log is not None:
        base = _table(read_log(log, config.format, config.event_types or None, config.min_weight))
    arrived = pa.concat_tables([_SCHEMA.empty_table(), *map(_read, _files(events))])
    rows = pa.concat_tables([base, arrived]).combine_chunks()
    times = rows["timestamp"].to_numpy()
    tombs = _equal(rows["event"], [FORGET])
    left_out = {
        "forgotten": _forgotten(rows["user_id"], tombs, times, rows["entry"]),
        "sent_twice": _repeated(rows["user_id"], rows["event_id"]),
        "of_other_kinds": np.zeros(len(rows), dtype=bool),
        "after_the_window": times >= until,
    }
    if kinds:
        left_out["of_other_kinds"][len(base) :] = ~_equal(arrived["event"], kinds)
    stay = ~tombs
    counts = {"base": len(base), "events": len(arrived) - int(tombs.sum())}
    for reason, out in left_out.items():
        counts[reason] = int((stay & out).sum())
        stay &= ~out
    first = times[stay].max(initial=-np.inf) - days * DAY_S if days else -np.inf
    counts["before_the_window"] = int((stay & (times < first)).sum())
    stay &= times >= first
    counts["kept"] = int(stay.sum())
    places = np.flatnonzero(stay)
    order = places[np.argsort(times[places], kind="stable")]
    return Window(rows.select(_KEPT).take(pa.array(order)), counts)


def write_window(window: Window, path: Path) -> None:
    """A Parquet file that read_log reads."""
    pq.write_table(window.rows, path)


def _table(log: Interactions) -> pa.Table:
    users = pa.array(np.repeat(log.user_ids, np.diff(log.offsets)), pa.string())
    items = pa.array(log.item_ids[log.items], pa.string())
    nothing = pa.nulls(len(log), pa.string())
    return pa.table([users, items, *[nothing] * 3, pa.array(log.times)], schema=_SCHEMA)


def _files(events: Path) -> Iterator[Path]:
    """In order of date, then name; what begins with a dot or an underscore is not finished."""
    for path in sorted(events.glob("date=*/*.parquet")):
        if path.name[0] not in "._":
            yield path


def _read(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except PARQUET_ERRORS as error:
        raise not_parquet(path, error) from error
    for name in _KEPT:
        need_column(path, table.column_names, name)
    try:
        columns = [_column(table, name) for name in _SCHEMA.names]
    except pa.ArrowException as error:
        raise LogError(f"{path}: a column cannot be read ({error}); export it again") from error
    read = pa.table(columns, schema=_SCHEMA)
    _check(path, read)
    return read


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        return pa.chunked_array([pa.nulls(len(table), pa.string())])
    column = table[name]
    if pa.types.is_timestamp(column.type):
        return pc.divide(column.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.float64()), 1e6)
    return column.cast(_SCHEMA.field(name).type)


def _check(path: Path, rows: pa.Table) -> None:
    times = rows["timestamp"].to_numpy()
    needs_item = ~_equal(rows["event"], [FORGET])
    bad = ~np.isfinite(times) | ~_is_id(rows["user_id"])
    bad |= needs_item & ~_is_id(rows["item_id"])
    if bad.any():
        row = int(np.argmax(bad))
        raise LogError(
            f"{path}, row {row + 1:,}: user_id and item_id of 1 to {MAX_ID_BYTES} bytes, and a "
            f"timestamp, are needed, and it has {rows.slice(row, 1).to_pylist()[0]!s:.300}; export "
            "it again"
        )


def _is_id(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    sizes = pc.fill_null(pc.binary_length(column), 0).to_numpy()
    found: NDArray[np.bool_] = (sizes > 0) & (sizes <= MAX_ID_BYTES)
    return found


def _equal(column: pa.ChunkedArray, wanted: list[str] | tuple[str, ...]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.is_in(column, pa.array(wanted, pa.string())).to_numpy()
    return found


def _entries(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Numbers in the order of the stream, which is that of arrival; -1 where there is none."""
    parts = pc.extract_regex(column, r"^(?P<ms>\d{1,13})-(?P<number>\d{1,6})$")
    ms, number = (
        pc.fill_null(pc.struct_field(parts, name).cast(pa.int64()), -1).to_numpy()
        for name in ("ms", "number")
    )
    return np.where(ms < 0, -1, ms * 10**6 + number)


def _forgotten(
    users: pa.ChunkedArray,
    tombs: NDArray[np.bool_],
    times: NDArray[np.float64],
    column: pa.ChunkedArray,
) -> NDArray[np.bool_]:
    """Rows that came before a tombstone of their user, by any measure: to be sure. column: of the
    entries in the stream."""
    if not tombs.any():
        return tombs
    codes = users.combine_chunks().dictionary_encode().indices.to_numpy()
    places, entries = np.arange(len(codes)), _entries(column)

    def last(values: NDArray[T], least: float) -> NDArray[T]:
        """Of the tombstones of each row's user the greatest; `least` where there is none."""
        greatest = np.full(codes.max() + 1, least, values.dtype)
        np.maximum.at(greatest, codes[tombs], values[tombs])
        of_rows: NDArray[T] = greatest[codes]
        return of_rows

    found = (times <= last(times, -np.inf)) | (places < last(places, -1))
    return found | (entries >= 0) & (entries < last(entries, -1))


def _repeated(user_ids: pa.ChunkedArray, event_ids: pa.ChunkedArray) -> NDArray[np.bool_]:
    """All but the first row of each event id of a user; rows without one are no repetition.

    Ids are apart for each user, as clients may number them so.
    """
    users = user_ids.combine_chunks().dictionary_encode().indices
    events = event_ids.combine_chunks().dictionary_encode().indices
    has_one: NDArray[np.bool_] = events.is_valid().to_numpy(zero_copy_only=False)
    places = np.flatnonzero(has_one)
    pairs = np.stack([codes.take(pa.array(places)).to_numpy() for codes in (users, events)])
    has_one[places[np.unique(pairs, axis=1, return_index=True)[1]]] = False
    return has_one

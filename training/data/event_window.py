"""The training window: a base log and the event files after it, without deleted, duplicate,
filtered or out-of-window rows."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.event_kinds import Effect, EventKinds
from training.data.event_files import FORGET, REQUIRED_COLUMNS, SCHEMA, is_in, read_event_files
from training.data.interactions import Interactions
from training.data.log_engine import open_window
from training.data.log_options import LogOptions
from training.data.readers import read_log
from training.data.undone import codes_of, undone
from training.data.window_checks import (
    check_base,
    check_common_items,
    check_event_rows,
    check_event_weights,
    check_units,
)
from training.data.window_rows import Partition, WindowRows

# Why a row is left out, the first that holds.
_REASONS = ("forgotten", "sent_twice", "of_other_kinds", "after_the_window")
DAY_S = timedelta(days=1).total_seconds()
T = TypeVar("T", np.float64, np.int64)


class Window(NamedTuple):
    """rows: user_id, item_id, timestamp in Unix seconds, in order of time, then of arrival; with
    event if event types have weights.

    counts: rows of the base log and of the event files, rows left out by reason, rows kept.
    """

    rows: pa.Table
    counts: dict[str, int]


def read_window(
    events: Path,
    log: Path | None,
    options: LogOptions,
    event_types: tuple[str, ...],
    days: float | None,
    until: float,
) -> Window:
    """The rows before `until`, of the last `days` among them; with None, of all days.

    options: how the base log is read, effects and weights of event types. event_types: those to
    keep from the event files; none keeps all. A tombstone, a row of the event files whose event is
    `forget`, deletes all rows of its user that are earlier by time, by position, or by entry in the
    stream. Raises LogError for a damaged file.
    """
    rows = _read_rows(events, log, options)
    check_units(rows, log, events)
    check_common_items(rows, log, events)
    check_event_rows(rows, events, event_types, until)
    check_event_weights(rows, log, events, options.weights_by_event)
    counts = {"base": rows.size("base"), "events": rows.size("events") - rows.tombstones()}
    counts |= dict.fromkeys((*_REASONS, "undone", "before_the_window", "kept"), 0)
    newest = newest_of_base = -np.inf
    for partition in rows.partitions():
        times = partition.rows["timestamp"].to_numpy()
        kept = _kept(partition, event_types, options.event_kinds, until, counts)
        rows.keep(partition, kept)
        counts["kept"] += int(kept.sum())
        newest = max(newest, times[kept].max(initial=-np.inf))
        base = slice(partition.base_size)
        newest_of_base = max(newest_of_base, times[base][kept[base]].max(initial=-np.inf))
    first = newest - days * DAY_S if days else -np.inf
    columns = [*REQUIRED_COLUMNS, "event"] if options.event_weights else REQUIRED_COLUMNS
    table = rows.since(first, columns)
    counts["before_the_window"], counts["kept"] = counts["kept"] - len(table), len(table)
    check_base(log, not np.isfinite(newest_of_base) or newest_of_base < first, counts["base"])
    return Window(table, counts)


def write_window(window: Window, path: Path) -> None:
    """A Parquet file that read_log reads."""
    pq.write_table(window.rows, path)


def _read_rows(events: Path, log: Path | None, options: LogOptions) -> WindowRows:
    base = None
    if log is not None:
        event_types = options.event_types or None
        base = read_log(log, options.format, event_types, options.min_weight, options)
    rows = open_window(events, base, options)
    if base is not None:
        for block, users in base.blocks():
            rows.add("base", _to_table(base, block, users))
    for table in read_event_files(events):
        rows.add("events", table)
    return rows


def _to_table(log: Interactions, block: slice, users: NDArray[np.int32]) -> pa.Table:
    """The interactions of a block."""
    user_ids = pa.array(log.user_ids[users], pa.string())
    item_ids = pa.array(log.item_ids[log.items[block]], pa.string())
    types = nulls = pa.nulls(len(users), pa.string())
    if log.events is not None:
        types = pa.array(log.events.types[log.events.codes[block]], pa.string())
    times = pa.array(np.asarray(log.times[block]))
    return pa.table([user_ids, item_ids, types, nulls, nulls, times], schema=SCHEMA)


def _kept(
    partition: Partition,
    event_types: Sequence[str],
    kinds: EventKinds,
    until: float,
    counts: dict[str, int],
) -> NDArray[np.bool_]:
    """(n,): the rows that are not left out; the others are added to the counts."""
    kept = ~partition.tombstones
    masks = _left_out(partition, event_types, kinds, until)
    for reason, mask in zip(_REASONS, masks, strict=True):
        counts[reason] += int((kept & mask).sum())
        kept &= ~mask
    counts["undone"] += _drop_undone(partition, kept, kinds)
    return kept


def _left_out(
    partition: Partition, event_types: Sequence[str], kinds: EventKinds, until: float
) -> tuple[NDArray[np.bool_], ...]:
    """Masks of rows to leave out, for each of the reasons."""
    rows = partition.rows
    other_types = _has_effect(partition, kinds, "exclude", "shown", "none")
    if event_types:
        other_types |= partition.is_event & ~is_in(rows["event"], event_types)
    times = rows["timestamp"].to_numpy()
    return (
        _deleted(rows["user_id"], partition.tombstones, times, rows["entry"]),
        _duplicates(rows["user_id"], rows["event_id"]),
        other_types,
        times >= until,
    )


def _has_effect(partition: Partition, kinds: EventKinds, *effects: Effect) -> NDArray[np.bool_]:
    """(n,): the events of these effects. Those of the base log have had theirs."""
    return is_in(partition.rows["event"], kinds.named(*effects)) & partition.is_event


def _drop_undone(partition: Partition, kept: NDArray[np.bool_], kinds: EventKinds) -> int:
    """Take out of the rows kept those that take another back, and these; how many there are."""
    undoes = _has_effect(partition, kinds, "undo")
    indices = np.flatnonzero(kept)
    if not undoes[indices].any():
        return 0
    rows = partition.rows
    users, items = codes_of(rows["user_id"])[indices], codes_of(rows["item_id"])[indices]
    times = rows["timestamp"].to_numpy()[indices]
    gone = indices[undone(users, items, times, undoes[indices])]
    kept[gone] = False
    return len(gone)


def _entry_numbers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Numbers in the order of the stream, which is the order of arrival; -1 without an entry."""
    parts = pc.extract_regex(column, r"^(?P<ms>\d{1,13})-(?P<number>\d{1,6})$")
    ms, number = (
        pc.fill_null(pc.struct_field(parts, name).cast(pa.int64()), -1).to_numpy()
        for name in ("ms", "number")
    )
    return np.where(ms < 0, -1, ms * 10**6 + number)


def _deleted(
    users: pa.ChunkedArray,
    tombstones: NDArray[np.bool_],
    times: NDArray[np.float64],
    entries: pa.ChunkedArray,
) -> NDArray[np.bool_]:
    """Rows that are earlier than a tombstone of their user by time, by position or by entry in the
    stream: any of the three deletes."""
    if not tombstones.any():
        return tombstones
    codes = users.combine_chunks().dictionary_encode().indices.to_numpy()
    positions, numbers = np.arange(len(codes)), _entry_numbers(entries)

    def latest(values: NDArray[T], minimum: float) -> NDArray[T]:
        """The greatest value among the tombstones of each row's user; `minimum` without one."""
        greatest = np.full(codes.max() + 1, minimum, values.dtype)
        np.maximum.at(greatest, codes[tombstones], values[tombstones])
        by_row: NDArray[T] = greatest[codes]
        return by_row

    earlier = (times <= latest(times, -np.inf)) | (positions < latest(positions, -1))
    return earlier | (numbers >= 0) & (numbers < latest(numbers, -1))


def deleted_rows(rows: pa.Table) -> NDArray[np.bool_]:
    """(n,): the rows that a tombstone deletes, and the repetitions of their events, which must not
    count once the first is gone. Tombstones themselves stay."""
    tombstones = is_in(rows["event"], [FORGET])
    times = rows["timestamp"].to_numpy()
    deleted = _deleted(rows["user_id"], tombstones, times, rows["entry"]) & ~tombstones
    if not deleted.any():
        return deleted
    repeated = _duplicates(rows["user_id"], rows["event_id"])
    forgotten = is_in(rows["user_id"], pc.unique(rows["user_id"].filter(pa.array(tombstones))))
    return deleted | (repeated & forgotten & ~tombstones)


def _duplicates(user_ids: pa.ChunkedArray, event_ids: pa.ChunkedArray) -> NDArray[np.bool_]:
    """All but the first row of each event id of a user; rows without an id are no duplicates.

    Ids are unique only within a user: clients may number them so.
    """
    users = user_ids.combine_chunks().dictionary_encode().indices
    events = event_ids.combine_chunks().dictionary_encode().indices
    duplicate: NDArray[np.bool_] = events.is_valid().to_numpy(zero_copy_only=False)
    indices = np.flatnonzero(duplicate)
    pairs = np.stack([codes.take(pa.array(indices)).to_numpy() for codes in (users, events)])
    duplicate[indices[np.unique(pairs, axis=1, return_index=True)[1]]] = False
    return duplicate

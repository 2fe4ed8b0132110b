"""The log of events: Parquet files by date, each event once.

FOLDER/date=YYYY-MM-DD/PARTITION_FIRST_LAST.parquet

The date is that of the events' timestamps, in UTC. FIRST and LAST are the ids of the first and last
entry of the partition's stream in the file; within a date, the order of the names is that of the
stream for each user. Columns: user_id, item_id, timestamp (Unix seconds), event, event_id, entry,
the id of the stream's entry, and impression_id, which files of earlier versions lack. Where event
is `forget`, and item_id null, a user was forgotten: see service/store/histories.py.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from index.release.atomic_io import atomic_path, fsync
from service.store.events import FORGET

EntryId: TypeAlias = tuple[int, int]  # milliseconds and sequence number
FILE_ERRORS = (OSError, pa.ArrowException)

_CACHED_DATES = 8  # of a partition, whose event ids are in memory
_LAST_SECOND = datetime(9999, 12, 31, tzinfo=UTC).timestamp()  # the date of anything later
_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("timestamp", pa.float64()),
        ("event", pa.string()),
        ("event_id", pa.string()),
        ("entry", pa.string()),
        ("impression_id", pa.string()),
    ]
)


class EventLogError(Exception):
    """A file of the log cannot be read; the text says which, and what to do."""


class EventRow(NamedTuple):
    """In the order of the schema."""

    user_id: str
    item_id: str | None
    timestamp: float
    event: str | None
    event_id: str | None
    entry: str
    impression_id: str | None = None

    @property
    def date(self) -> str:
        second = min(max(self.timestamp, 0.0), _LAST_SECOND)
        return datetime.fromtimestamp(second, UTC).date().isoformat()


def parse_entry(entry: bytes, fields: dict[bytes, bytes]) -> EventRow | None:
    """The row of an entry of the stream; None if the entry is not an event."""
    texts = {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in fields.items()
    }
    try:
        timestamp = float(texts["timestamp"])
        row = EventRow(
            texts["user_id"],
            texts.get("item_id"),
            timestamp,
            texts.get("event"),
            texts.get("event_id"),
            entry.decode(),
            texts.get("impression_id"),
        )
    except (KeyError, ValueError):
        return None
    needs_item = row.event != FORGET
    return row if math.isfinite(timestamp) and (row.item_id or not needs_item) else None


class EventLog:
    """The files. In memory are only their names, and the event ids of a few dates.

    events: rows written so far. files: files written. duplicates: rows that the log had, by the
    whole row or by event_id.
    """

    def __init__(self, folder: Path) -> None:
        """Removes the partial files of an export that was killed."""
        self.events = self.files = self.duplicates = 0
        self.folder = folder
        self._files: defaultdict[int, dict[Path, _LogFile]] = defaultdict(dict)
        self._event_ids = lru_cache(_CACHED_DATES)(self._read_event_ids)
        for path in folder.glob("date=*/.*.parquet*"):
            path.unlink()
        for path in folder.glob("date=*/*.parquet"):
            if file := _parse_name(path):
                self._files[file.partition][path] = file

    def add(self, partition: int, rows: Sequence[EventRow]) -> None:
        """Write the rows that the log does not have, so that they survive a crash."""
        by_date: defaultdict[str, list[EventRow]] = defaultdict(list)
        for row in rows:
            by_date[row.date].append(row)
        for date, rows_of_date in by_date.items():
            new = self._new_rows(partition, date, rows_of_date)
            self.duplicates += len(rows_of_date) - len(new)
            if new:
                self._write(partition, date, new)
                self.events += len(new)

    def contained(self, partition: int, entries: Sequence[bytes]) -> set[bytes]:
        """The entries, given in order, that the log has."""
        if not entries:
            return set()
        first, last = _parse_id(entries[0].decode()), _parse_id(entries[-1].decode())
        logged = {row.entry.encode() for row in self._rows_between(partition, None, first, last)}
        return logged & set(entries)

    def _new_rows(self, partition: int, date: str, rows: Sequence[EventRow]) -> list[EventRow]:
        # By the whole row: a Redis that replaced another may give an entry id a second time.
        first, last = _parse_id(rows[0].entry), _parse_id(rows[-1].entry)
        logged = set(self._rows_between(partition, date, first, last))
        event_ids = self._event_ids(partition, date)
        new = []
        for row in rows:
            event_id = (row.user_id, row.event_id) if row.event_id else None
            if row in logged or event_id in event_ids:
                continue
            new.append(row)
            if event_id:
                event_ids.add(event_id)
        return new

    def _rows_between(
        self, partition: int, date: str | None, first: EntryId, last: EntryId
    ) -> Iterator[EventRow]:
        """The rows of all files, of the date if one is given, that may have entries in between."""
        for file in self._files[partition].values():
            if file.first <= last and first <= file.last and date in (None, file.date):
                yield from _read_rows(file.path)

    def _read_event_ids(self, partition: int, date: str) -> set[tuple[str, str]]:
        """Users with their event ids.

        Redis has removed duplicates for --event-dedup-ttl-hours, unless its data was restored
        from a backup since.
        """
        columns = ["user_id", "event_id"]
        files = [file for file in self._files[partition].values() if file.date == date]
        tables = [_read_columns(file.path, columns) for file in files]
        return {
            (user_id, event_id)
            for table in tables
            for user_id, event_id in zip(
                *(table[name].to_pylist() for name in columns), strict=True
            )
            if event_id
        }

    def _write(self, partition: int, date: str, rows: list[EventRow]) -> None:
        folder = self.folder / f"date={date}"
        file = _file_of(folder, partition, rows)
        if file.path in self._files[partition]:
            rows = [*_read_rows(file.path), *rows]  # other rows with the same entry ids
        folder.mkdir(exist_ok=True)
        fsync(self.folder)  # each time: an export may have been killed before it did this
        columns = [list(column) for column in zip(*rows, strict=True)]
        with atomic_path(file.path) as temporary, temporary.open("wb") as opened:
            pq.write_table(pa.table(columns, schema=_SCHEMA), opened, compression="zstd")
        self._files[partition][file.path] = file
        self.files += 1


class _LogFile(NamedTuple):
    path: Path
    partition: int
    first: EntryId
    last: EntryId

    @property
    def date(self) -> str:
        return self.path.parent.name.removeprefix("date=")


_NAME = re.compile(r"(\d+)_(\d+)-(\d+)_(\d+)-(\d+)\.parquet")


def _parse_name(path: Path) -> _LogFile | None:
    """None for a file that this log did not write."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    partition, *ids = map(int, match.groups())
    return _LogFile(path, partition, (ids[0], ids[1]), (ids[2], ids[3]))


def _file_of(folder: Path, partition: int, rows: Sequence[EventRow]) -> _LogFile:
    first, last = _parse_id(rows[0].entry), _parse_id(rows[-1].entry)
    ids = [f"{milliseconds:013}-{number:06}" for milliseconds, number in (first, last)]
    return _LogFile(folder / f"{partition:02}_{'_'.join(ids)}.parquet", partition, first, last)


def _parse_id(entry: str) -> EntryId:
    milliseconds, number = entry.split("-")
    return int(milliseconds), int(number)


def _read_columns(path: Path, columns: list[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns, use_threads=False)
    except FILE_ERRORS as error:
        raise EventLogError(
            f"{path}: cannot be read ({error}); repair it, or move it away: those of its events "
            "that are still in Redis are then written again"
        ) from error


def _read_rows(path: Path) -> Iterator[EventRow]:
    table = _read_columns(path, _SCHEMA.names)
    columns = [
        table[name].to_pylist() if name in table.column_names else [None] * len(table)
        for name in _SCHEMA.names
    ]
    return map(EventRow._make, zip(*columns, strict=True))

"""The events in Redis -> a log of Parquet files: each event once, whenever this is killed.

FOLDER/date=YYYY-MM-DD/PART_FIRST_LAST.parquet

The date is that of the events' timestamps, in UTC; the rest are the first and last entry that the
file has of the part's stream. Within a date, the order of the names is that of the stream for each
user. Columns: user_id, item_id, timestamp (Unix seconds), event, event_id, and entry, the entry's
id. Where event is `forget`, and item_id null, a user was forgotten:
service/store/histories.py says how.

What a consumer group is given stays pending until it is in files that a crash leaves alone; one
script then acknowledges it, deletes it, and counts it off from what waits. Killed at any moment, an
export leaves its entries pending, and perhaps in files: the next takes them first, whoever had
them, and does not write again what the log has. What waits by that count, and is not in the stream,
was dropped from a full stream before it was read: it is lost, which is told at least once.
"""

import asyncio
import logging
import math
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, RedisClusterException, RedisError

from index.release.atomic_io import atomic_path, fsync
from index.release.lock import exclusive_lock
from service.http.schemas.histories import FORGET
from service.settings import Settings
from service.store.embedded_redis import EmbeddedRedisError
from service.store.histories import PARTS, STREAMS, WAITING
from service.store.redis_url import Address, Client, address_of

GROUP = "export"

# Entries in memory, and in one call that deletes: a few milliseconds of a server that does nothing
# else meanwhile.
_BATCH, _ACKNOWLEDGED = 2000, 250
_DATES = 8  # whose event ids are kept in memory, of one part
_LAST_SECOND = datetime(9999, 12, 31, tzinfo=UTC).timestamp()  # what is later is filed under it
_LOCK = ".lock"
_TIMEOUT_S = 10.0
_LOADING_S, _LOOK_S = 300.0, 0.1
_ATTEMPTS = 5
_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("timestamp", pa.float64()),
        ("event", pa.string()),
        ("event_id", pa.string()),
        ("entry", pa.string()),
    ]
)

# What is pending, with its fields; none where the entry is gone from the stream.
_PENDING = """
local found = {}
for i, pending in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[2])) do
  local entry = redis.call('XRANGE', KEYS[1], pending[1], pending[1])[1]
  found[i] = {pending[1], entry and entry[2] or {}}
end
return found
"""

# Of those that are in the log (1) it is known that they wait no longer; of others (0) it is not.
# Those not done yet are pending, or at least there where a server has taken over that had not heard
# of their being read.
_DONE = """
local stream, waiting = unpack(KEYS)
local done = 0
for i = 3, #ARGV do
  local pending = redis.call('XACK', stream, ARGV[1], ARGV[i])
  local there = redis.call('XDEL', stream, ARGV[i])
  done = done + math.max(pending, there)
end
redis.call('DECRBY', waiting, done * ARGV[2])
"""

_LOST = "return (redis.call('GET', KEYS[2]) or 0) - redis.call('XLEN', KEYS[1])"

# No more than are lost still, should this be done twice.
_TOLD = """
local lost = (redis.call('GET', KEYS[2]) or 0) - redis.call('XLEN', KEYS[1])
redis.call('DECRBY', KEYS[2], math.min(math.max(ARGV[1], 0), lost))
"""

Entry: TypeAlias = tuple[bytes, dict[bytes, bytes]]
Id: TypeAlias = tuple[int, int]
log = logging.getLogger(__name__)


class ExportError(Exception):
    """It could not be done, or not to its end; the text says why. Done again, it goes on."""


class ExportBusyError(ExportError):
    """Another is at work in the same folder."""


@dataclass
class Exported:
    """What an export did.

    events: rows written. duplicates: entries that were there before, by themselves or by their
    event_id. lost: dropped from a full stream before they were read, or no event at all.
    """

    events: int = 0
    files: int = 0
    duplicates: int = 0
    lost: int = 0


def export_events(settings: Settings, folder: Path) -> Exported:
    """Bring all that waits in Redis to the log in the folder. Raises ExportError."""
    held = ExportBusyError(f"{folder}: an export is at work; wait until it has ended")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fsync(folder.parent)
        with exclusive_lock(folder / _LOCK, held):
            return asyncio.run(_export(address_of(settings), _Log(folder)))
    except (RedisError, RedisClusterException) as error:
        raise ExportError(
            f"Redis does not answer, or refuses ({error}); try again later"
        ) from error
    except EmbeddedRedisError as error:
        raise ExportError(str(error)) from error
    except (OSError, pa.ArrowException) as error:
        raise ExportError(f"{folder}: cannot hold the log ({error})") from error


async def _export(address: Address, events: "_Log") -> Exported:
    client = address.client(
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        retry=Retry(ExponentialBackoff(cap=2, base=0.1), _ATTEMPTS),
        protocol=2,
    )
    try:
        await address.revive(client)
        amiss = None
        for part in range(PARTS):
            try:
                await _Stream(client, part, events).drain()
            except ExportError as error:  # of a file of this part; the others fill up meanwhile
                amiss = error
    finally:
        await address.close(client)
    if amiss is not None:
        raise amiss
    return events.exported


class _Stream:
    """One part's stream, for the group; every call may be made twice."""

    def __init__(self, client: Client, part: int, events: "_Log") -> None:
        self._client = client
        self._part = part
        self._keys = (STREAMS[part], WAITING[part])
        self._log = events

    async def drain(self) -> None:
        if await self._is_there():
            await self._join()
            for source in (self._pending, self._unread):
                size = _BATCH
                while size == _BATCH:  # with a smaller one it ends, even if more keep coming
                    entries = await source()
                    await self._take(entries)
                    size = len(entries)
        await self._tell_losses()

    async def _is_there(self) -> bool:
        """Once a server that has just been started has read what it holds."""
        deadline = time.monotonic() + _LOADING_S
        while True:
            try:
                return bool(await self._client.exists(self._keys[0]))
            except BusyLoadingError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_LOOK_S)

    async def _join(self) -> None:
        try:
            await self._client.xgroup_create(self._keys[0], GROUP, id="0")
        except RedisError as error:
            if not str(error).startswith("BUSYGROUP"):  # which says that it is there
                raise

    async def _pending(self) -> list[Entry]:
        found = await self._client.eval(_PENDING, 1, self._keys[0], GROUP, _BATCH)
        return [(entry, dict(zip(flat[::2], flat[1::2], strict=True))) for entry, flat in found]

    async def _unread(self) -> list[Entry]:
        streams: dict[Any, Any] = {self._keys[0]: ">"}
        replies: Any = await self._client.xreadgroup(GROUP, GROUP, streams, count=_BATCH)
        return [(entry, fields) for _, entries in replies for entry, fields in entries]

    async def _take(self, entries: list[Entry]) -> None:
        if not entries:
            return
        read = {entry: _row(entry, fields) for entry, fields in entries}
        self._log.add(self._part, [row for row in read.values() if row is not None])
        # Those of an earlier export, dropped since, that may be in its files.
        gone = self._log.among(self._part, [entry for entry, row in read.items() if row is None])
        logged = {entry for entry, row in read.items() if row is not None} | gone
        await self._done(logged, in_log=True)
        await self._done(read.keys() - logged, in_log=False)

    async def _done(self, entries: set[bytes], in_log: bool) -> None:
        ids = list(entries)
        for first in range(0, len(ids), _ACKNOWLEDGED):
            some = ids[first : first + _ACKNOWLEDGED]
            await self._client.eval(_DONE, 2, *self._keys, GROUP, int(in_log), *some)

    async def _tell_losses(self) -> None:
        lost = await self._client.eval(_LOST, 2, *self._keys)
        if lost > 0:
            self._log.exported.lost += lost
            log.error(
                "EVENTS LOST: dropped from a full stream before they were exported",
                extra={
                    "events": lost,
                    "stream": self._keys[0],
                    "remedy": "export more often, or raise --event-stream-length",
                },
            )
        if lost:
            await self._client.eval(_TOLD, 2, *self._keys, lost)


class _Row(NamedTuple):
    """In the order of the schema."""

    user_id: str
    item_id: str | None
    timestamp: float
    event: str | None
    event_id: str | None
    entry: str

    @property
    def date(self) -> str:
        second = min(max(self.timestamp, 0.0), _LAST_SECOND)
        return datetime.fromtimestamp(second, UTC).date().isoformat()


def _row(entry: bytes, fields: dict[bytes, bytes]) -> _Row | None:
    """None for what is no event."""
    texts = {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in fields.items()
    }
    try:
        timestamp = float(texts["timestamp"])
        row = _Row(
            texts["user_id"],
            texts.get("item_id"),
            timestamp,
            texts.get("event"),
            texts.get("event_id"),
            entry.decode(),
        )
    except (KeyError, ValueError):
        return None
    needs_item = row.event != FORGET
    return row if math.isfinite(timestamp) and (row.item_id or not needs_item) else None


class _File(NamedTuple):
    """first, last: milliseconds and number of the stream's entries."""

    path: Path
    part: int
    first: Id
    last: Id

    @property
    def date(self) -> str:
        return self.path.parent.name.removeprefix("date=")


class _Log:
    """The files, of which only names and the event ids of a few dates are in memory."""

    def __init__(self, folder: Path) -> None:
        self.exported = Exported()
        self._folder = folder
        self._files: defaultdict[int, dict[Path, _File]] = defaultdict(dict)
        self._event_ids: dict[tuple[int, str], set[tuple[str, str]]] = {}
        for path in folder.glob("date=*/.*.parquet*"):
            path.unlink()  # of an export that was killed
        for path in folder.glob("date=*/*.parquet"):
            if file := _file(path):
                self._files[file.part][path] = file

    def add(self, part: int, rows: Sequence[_Row]) -> None:
        """Write those that are not there, and let no crash take them away."""
        by_date: defaultdict[str, list[_Row]] = defaultdict(list)
        for row in rows:
            by_date[row.date].append(row)
        for date, of_date in by_date.items():
            new = self._new(part, date, of_date)
            self.exported.duplicates += len(of_date) - len(new)
            if new:
                self._write(part, date, new)
                self.exported.events += len(new)

    def among(self, part: int, entries: Sequence[bytes]) -> set[bytes]:
        """Those of the entries that are in the log."""
        if not entries:
            return set()
        first, last = _id(entries[0].decode()), _id(entries[-1].decode())
        there = {row.entry.encode() for row in self._between(part, None, first, last)}
        return there & set(entries)

    def _new(self, part: int, date: str, rows: Sequence[_Row]) -> list[_Row]:
        # By all that they say: a Redis that takes another's place may give an id a second time.
        there = set(self._between(part, date, _id(rows[0].entry), _id(rows[-1].entry)))
        known = self._ids(part, date)
        new = []
        for row in rows:
            name = (row.user_id, row.event_id) if row.event_id else None
            if row in there or name in known:
                continue
            new.append(row)
            if name:
                known.add(name)
        return new

    def _between(self, part: int, date: str | None, first: Id, last: Id) -> Iterator[_Row]:
        for file in self._files[part].values():
            if file.first <= last and first <= file.last and date in (None, file.date):
                yield from _read(file.path)

    def _ids(self, part: int, date: str) -> set[tuple[str, str]]:
        """Users with their event ids. One known for --event-memory-hours came from Redis, which
        may have been set back since."""
        key = (part, date)
        if key not in self._event_ids:
            while len(self._event_ids) >= _DATES:
                self._event_ids.pop(next(iter(self._event_ids)))
            files = [file for file in self._files[part].values() if file.date == date]
            columns = ["user_id", "event_id"]
            tables = [_table(file.path, columns) for file in files]
            self._event_ids[key] = {
                (user_id, event_id)
                for table in tables
                for user_id, event_id in zip(
                    *(table[name].to_pylist() for name in columns), strict=True
                )
                if event_id
            }
        return self._event_ids[key]

    def _write(self, part: int, date: str, rows: list[_Row]) -> None:
        folder = self._folder / f"date={date}"
        file = _named(folder, part, rows)
        if file.path in self._files[part]:
            rows = [*_read(file.path), *rows]  # of the same ids, and yet others
        folder.mkdir(exist_ok=True)
        fsync(self._folder)  # each time: an export that was killed may not have come to it
        columns = [list(column) for column in zip(*rows, strict=True)]
        with atomic_path(file.path) as temporary, temporary.open("wb") as opened:
            pq.write_table(pa.table(columns, schema=_SCHEMA), opened, compression="zstd")
        self._files[part][file.path] = file
        self.exported.files += 1


_NAME = re.compile(r"(\d+)_(\d+)-(\d+)_(\d+)-(\d+)\.parquet")


def _file(path: Path) -> _File | None:
    """None for what is no file of ours."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    part, *ids = map(int, match.groups())
    return _File(path, part, (ids[0], ids[1]), (ids[2], ids[3]))


def _named(folder: Path, part: int, rows: Sequence[_Row]) -> _File:
    first, last = _id(rows[0].entry), _id(rows[-1].entry)
    name = "_".join([f"{part:02}", *(f"{ms:013}-{number:06}" for ms, number in (first, last))])
    return _File(folder / f"{name}.parquet", part, first, last)


def _id(entry: str) -> Id:
    milliseconds, number = entry.split("-")
    return int(milliseconds), int(number)


def _table(path: Path, columns: list[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise ExportError(
            f"{path}: cannot be read ({error}); mend it, or move it away: what else it held of the "
            "events that wait is then written again"
        ) from error


def _read(path: Path) -> Iterator[_Row]:
    table = _table(path, _SCHEMA.names)
    columns = [table[name].to_pylist() for name in _SCHEMA.names]
    return map(_Row._make, zip(*columns, strict=True))

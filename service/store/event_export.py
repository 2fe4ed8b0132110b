"""The events in Redis -> the log: each event once, even if the export is killed at any moment.

An entry that the consumer group has read stays pending until it is in files that survive a crash.
One script then acknowledges it, deletes it, and subtracts it from the count of entries that are not
exported. A killed export leaves its entries pending, and perhaps in files: the next export takes
them first, whichever consumer had them, and does not write again what the log has. The entries that
are counted and not in the stream were dropped from a full stream before they were read: they are
lost, which is reported at least once.
"""

import asyncio
import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, RedisClusterException, RedisError

from index.release.atomic_io import fsync
from index.release.lock import exclusive_lock
from service.settings import SetupError, StoreSettings
from service.store.details_export import export_details
from service.store.embedded_redis import EmbeddedRedisError
from service.store.event_log import FILE_ERRORS, EventLog, EventLogError, parse_entry
from service.store.keys import PARTITIONS, Keys
from service.store.ownership import ForeignDataError, Ownership
from service.store.redis_client import deployment_of
from service.store.redis_errors import reason_of
from service.store.redis_url import Client

GROUP = "export"

# Entries in memory, and in one call that deletes: that blocks the server for a few milliseconds.
_BATCH, _DELETE_BATCH = 2000, 250
_LOCK = ".lock"
_TIMEOUT_S = 10.0
_LOADING_TIMEOUT_S, _LOADING_POLL_S = 300.0, 0.1
_RETRIES = 5

# The pending entries with their fields; without fields where the stream no longer has the entry.
_PENDING = """
local found = {}
for i, pending in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[2])) do
  local entry = redis.call('XRANGE', KEYS[1], pending[1], pending[1])[1]
  found[i] = {pending[1], entry and entry[2] or {}}
end
return found
"""

# Entries that are in the log (1) are subtracted from the count; for others (0) it is unknown
# whether they were events. An entry counts if it was pending or, on a replica that was promoted
# before it heard of the reading, if it was in the stream.
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

# Subtracts no more than is still lost, in case this is executed twice.
_REPORTED = """
local lost = (redis.call('GET', KEYS[2]) or 0) - redis.call('XLEN', KEYS[1])
redis.call('DECRBY', KEYS[2], math.min(math.max(ARGV[1], 0), lost))
"""

Entry: TypeAlias = tuple[bytes, dict[bytes, bytes]]
log = logging.getLogger(__name__)


@dataclass
class Exported:
    """What an export did.

    events: rows written. duplicates: entries that the log had, by themselves or by their event_id.
    lost: entries dropped from a full stream before they were read, or that are not events. items:
    those of which the shop has said something.
    """

    events: int = 0
    files: int = 0
    duplicates: int = 0
    lost: int = 0
    items: int = 0

    def summary(self) -> str:
        """One line of JSON; with the items only if there are any."""
        counts = asdict(self)
        if not self.items:
            del counts["items"]
        return json.dumps(counts)


class ExportError(Exception):
    """The export failed; the text says why. The next export continues it.

    exported: what it did before that; its losses are reported this once.
    """

    def __init__(self, message: str, exported: Exported | None = None) -> None:
        super().__init__(message)
        self.exported = exported or Exported()


class ExportBusyError(ExportError):
    """Another export is running in the same folder."""


def export_events(settings: StoreSettings, folder: Path, root: Path | None = None) -> Exported:
    """Move all events from Redis to the log in the folder. Raises ExportError.

    root: whose events these must be; with None, of whichever root.
    """
    busy = ExportBusyError(f"{folder}: an export is at work; wait until it has ended")
    exported = Exported()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fsync(folder.parent)
        with exclusive_lock(folder / _LOCK, busy):
            asyncio.run(_export(settings, root, EventLog(folder), exported))
            return exported
    except (RedisError, RedisClusterException) as error:
        why = f"{reason_of(error).text} ({error})"
        raise ExportError(
            f"Redis does not answer, or refuses: {why}; try again later", exported
        ) from error
    except (EmbeddedRedisError, EventLogError, ForeignDataError, SetupError) as error:
        raise ExportError(str(error), exported) from error
    except FILE_ERRORS as error:
        raise ExportError(f"{folder}: cannot hold the log ({error})", exported) from error


async def _export(
    settings: StoreSettings, root: Path | None, events: EventLog, exported: Exported
) -> None:
    """Counts in `exported` what it does, also if it fails."""
    deployment, keys = deployment_of(settings), Keys(settings.redis_prefix)
    client = deployment.client(
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        retry=Retry(ExponentialBackoff(cap=2, base=0.1), _RETRIES),
        decode_responses=False,
        protocol=2,
    )
    failure = None
    try:
        await deployment.recover(client)
        await _exists(client, keys.owner)
        await Ownership(settings, root).check(client)
        for partition in range(PARTITIONS):
            stream = _Stream(client, keys, partition, events)
            try:
                await stream.drain()
            except EventLogError as error:  # of a file of this partition; the others go on
                failure = error
            exported.lost += stream.lost
        exported.items = await export_details(client, keys, events.folder)
    finally:
        exported.events, exported.files = events.events, events.files
        exported.duplicates = events.duplicates
        await deployment.close(client)
    if failure is not None:
        raise failure


async def _exists(client: Client, key: str) -> bool:
    """Waits while a server that was just started loads its data."""
    deadline = time.monotonic() + _LOADING_TIMEOUT_S
    while True:
        try:
            return bool(await client.exists(key))
        except BusyLoadingError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_LOADING_POLL_S)


class _Stream:
    """One partition's stream, read by the consumer group. Every call may be made twice.

    lost: entries found to be lost.
    """

    def __init__(self, client: Client, keys: Keys, partition: int, events: EventLog) -> None:
        self.lost = 0
        self._client = client
        self._partition = partition
        self._keys = (keys.streams[partition], keys.unexported[partition])
        self._log = events

    async def drain(self) -> None:
        """Move all entries to the log. Raises EventLogError."""
        if await _exists(self._client, self._keys[0]):
            await self._create_group()
            for source in (self._pending, self._unread):
                size = _BATCH
                while size == _BATCH:  # ends with a smaller batch, even if more keep arriving
                    entries = await source()
                    await self._move(entries)
                    size = len(entries)
        await self._report_losses()

    async def _create_group(self) -> None:
        try:
            await self._client.xgroup_create(self._keys[0], GROUP, id="0")
        except RedisError as error:
            if not str(error).startswith("BUSYGROUP"):  # it exists
                raise

    async def _pending(self) -> list[Entry]:
        found = await self._client.eval(_PENDING, 1, self._keys[0], GROUP, _BATCH)
        return [(entry, dict(zip(flat[::2], flat[1::2], strict=True))) for entry, flat in found]

    async def _unread(self) -> list[Entry]:
        streams: dict[Any, Any] = {self._keys[0]: ">"}
        replies: Any = await self._client.xreadgroup(GROUP, GROUP, streams, count=_BATCH)
        return [(entry, fields) for _, entries in replies for entry, fields in entries]

    async def _move(self, entries: list[Entry]) -> None:
        if not entries:
            return
        rows = {entry: parse_entry(entry, fields) for entry, fields in entries}
        self._log.add(self._partition, [row for row in rows.values() if row is not None])
        # Entries without fields may be in the log: an earlier export wrote them before they were
        # dropped from the stream.
        unparsed = [entry for entry, row in rows.items() if row is None]
        logged = (rows.keys() - set(unparsed)) | self._log.contained(self._partition, unparsed)
        await self._delete(logged, in_log=True)
        await self._delete(rows.keys() - logged, in_log=False)

    async def _delete(self, entries: set[bytes], in_log: bool) -> None:
        ids = list(entries)
        for first in range(0, len(ids), _DELETE_BATCH):
            batch = ids[first : first + _DELETE_BATCH]
            await self._client.eval(_DONE, 2, *self._keys, GROUP, int(in_log), *batch)

    async def _report_losses(self) -> None:
        lost = await self._client.eval(_LOST, 2, *self._keys)
        if lost > 0:
            self.lost += lost
            log.error(
                "EVENTS LOST: dropped from a full stream before they were exported",
                extra={
                    "events": lost,
                    "stream": self._keys[0],
                    "remedy": "export more often, or raise --event-stream-max-length",
                },
            )
        if lost:
            await self._client.eval(_REPORTED, 2, *self._keys, lost)

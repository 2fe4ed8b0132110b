"""Which items the shop has withdrawn or announced: stored in Redis, and followed by every worker.

re4:{withdrawn}:items      set of the ids that must be in no response
re4:{withdrawn}:announced  sorted set of ids that may be recommended before a release knows them, by
                           the time of the last announcement; capped
re4:{withdrawn}:unknown    sorted set of withdrawn ids that no release knows, by the time since when
re4:{withdrawn}:changes    stream of the changes, capped: see service.store.availability_scripts
re4:{withdrawn}:version    the last change's
re4:{withdrawn}:expiry     exists for a while after some process has looked for expired ids
"""

import asyncio
import logging
import time
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from index.release.reading import Release
from index.retrieval.catalog import PADDING
from service.errors import HistoryUnavailableError
from service.settings import Settings
from service.store.availability_log import AvailabilityLog, Change, Entry, Poll, State
from service.store.redis_client import ResilientRedis
from service.store.release_in_use import ReleaseInUse
from service.telemetry.metrics import Metrics

_POLL_INTERVAL_S = 0.25
_EXPIRY_INTERVAL_S = 600.0
_MAX_ROUNDS = 100  # of catching up in one poll
_NO_ROWS: frozenset[int] = frozenset()

log = logging.getLogger(__name__)


class Result(NamedTuple):
    """Of one change. known: whether the release knows the item, or the shop had announced it."""

    changed: bool
    known: bool


class ItemAvailability:
    """The items withdrawn and announced, as of this process's last poll.

    While Redis is down they stay as they are. Items that no release knows may be withdrawn or
    announced too. If Redis has lost withdrawn items, they are written again from this process's
    memory.
    """

    def __init__(
        self, redis: ResilientRedis, live: ReleaseInUse, settings: Settings, metrics: Metrics
    ) -> None:
        self._log = AvailabilityLog(redis)
        self._live = live
        self._metrics = metrics
        self._ttl_s = settings.unknown_item_ttl_days * 86_400
        self._poll_lock = asyncio.Lock()  # an older poll must not end after a newer one
        self._version: bytes | None = None
        self._position = b"0-0"
        self._rows: list[tuple[Release, frozenset[int]]] = []  # of the live one and the canary
        self._sorted: tuple[int, list[str]] = (-1, [])
        self.withdrawn: set[str] = set()
        self.announced: set[str] = set()
        self.revision = 0  # another after each change of the two

    @property
    def is_read(self) -> bool:
        """Whether the items have been read once."""
        return self._version is not None

    def withdrawn_rows(self, release: Release) -> frozenset[int]:
        """The withdrawn rows of the release; the same object until something changes."""
        for cached_release, rows in self._rows:
            if cached_release is release:
                return rows
        found = release.retriever.catalog.rows(self.withdrawn) if self.withdrawn else ()
        rows = frozenset(found) - {PADDING}
        self._rows = [(release, rows), *self._rows[:1]]
        return rows

    async def page(self, after: str, limit: int) -> tuple[list[str], str | None]:
        """At most `limit` withdrawn ids after an id, in order; and the last if more follow."""
        revision, ids = self._sorted
        if revision != self.revision:
            revision = self.revision
            ids = await asyncio.to_thread(sorted, [*self.withdrawn])
            self._sorted = revision, ids
        first = bisect_right(ids, after)
        found = ids[first : first + limit]
        return found, found[-1] if first + limit < len(ids) else None

    async def change(self, items: Sequence[tuple[str, bool]]) -> list[Result]:
        """Withdraw items (False), or make them available again (True), in order.

        An available item that the release does not know is announced. Other workers follow at
        their next poll. Raises HistoryUnavailableError; then some items may have changed.
        """
        knows = self._known([item for item, _ in items])
        changes = [
            Change(item, State.PLAIN if known else State.ANNOUNCED)
            if available
            else Change(item, State.WITHDRAWN)
            for (item, available), known in zip(items, knows, strict=True)
        ]
        replies = await self._log.write(changes)
        await self.poll()
        return [
            Result(changed, known or announced)
            for (changed, announced), known in zip(replies, knows, strict=True)
        ]

    def knows(self, item: str) -> bool:
        """Whether the release knows the item, or the shop has announced it."""
        return item in self.announced or self._known([item])[0]

    async def watch(self) -> None:
        """Poll, and look for expired ids now and then, for ever."""
        next_expiry = time.monotonic() + _EXPIRY_INTERVAL_S
        while True:
            await asyncio.sleep(_POLL_INTERVAL_S)
            with suppress(HistoryUnavailableError):  # recorded by ResilientRedis
                await self.poll()
                if time.monotonic() >= next_expiry:
                    next_expiry = time.monotonic() + _EXPIRY_INTERVAL_S
                    if await self._log.may_expire():
                        await self.expire(time.time())

    async def expire(self, now: float) -> None:
        """Drop the ids that no release has known for the time allowed. now: Unix seconds.

        Raises HistoryUnavailableError.
        """
        if self._live.release is not None:
            items = [*self.withdrawn]
            known = self._known(items)
            await self._log.expire(dict(zip(items, known, strict=True)), now, now - self._ttl_s)
            await self.poll()

    async def poll(self) -> None:
        """Apply the changes since the last poll; the first poll reads everything.

        Raises HistoryUnavailableError.
        """
        async with self._poll_lock:
            if self._version is None:
                await self._read_all()
            for _ in range(_MAX_ROUNDS):
                poll = await self._log.poll(self._position, self._version or b"")
                if self._is_current(poll):
                    return
                if poll.entries and self._follow(poll.entries):
                    continue
                if self._has_lost(poll):
                    await self._restore()
                await self._read_all()

    def _known(self, items: Sequence[str]) -> list[bool]:
        release = self._live.release
        if release is None:
            return [False] * len(items)
        return [row != PADDING for row in release.retriever.catalog.rows(items)]

    def _is_current(self, poll: Poll) -> bool:
        return poll.version == self._version and poll.withdrawn == len(self.withdrawn)

    def _follow(self, entries: Sequence[Entry]) -> bool:
        """Apply the entries, unless one is missing before or among them: then none."""
        previous = self._version
        for entry in entries:
            if entry.previous != previous:
                return False
            previous = entry.version
        self._apply([entry.change for entry in entries])
        self._position, self._version = entries[-1].id, entries[-1].version
        return True

    def _has_lost(self, poll: Poll) -> bool:
        """Whether Redis has fewer withdrawn items than were written, or an older state.

        Otherwise this process has missed changes, or an earlier version has made them.
        """
        if poll.version == self._version:
            return poll.withdrawn < len(self.withdrawn)
        began_anew = any(not entry.previous for entry in poll.entries)
        return bool(self.withdrawn) and (began_anew or poll.is_before(self._position))

    async def _restore(self) -> None:
        """Write again the withdrawn items that Redis has lost, from memory and from the stream."""
        states = {entry.change.item: entry.change.state for entry in await self._log.entries()}
        stored, _ = await self._log.read_items()
        lost = {
            item
            for item in {*self.withdrawn, *states} - stored
            if states.get(item, State.WITHDRAWN) is State.WITHDRAWN
        }
        self._metrics.withdrawn_vanished.inc()
        log.error(
            "WITHDRAWN ITEMS VANISHED from Redis",
            extra={
                "missing": len(self.withdrawn - stored),
                "restored": len(lost),
                "remedy": "set maxmemory-policy noeviction, and make Redis persistent",
            },
        )
        await self._log.write([Change(item, State.WITHDRAWN) for item in sorted(lost)])

    async def _read_all(self) -> None:
        """Read both sets in small pieces; what changes meanwhile follows from the stream."""
        head = await self._log.poll(b"0-0", b"")
        if self._version is None and head.expected > head.withdrawn:
            await self._restore()
            head = await self._log.poll(b"0-0", b"")
        withdrawn, announced = await self._log.read_items()
        self._position, self._version = head.last_id, head.version
        self.withdrawn, self.announced = withdrawn, announced
        self._rows = []
        self.revision += 1
        log.info("items withdrawn", extra={"items": len(withdrawn), "announced": len(announced)})

    def _apply(self, changes: Sequence[Change]) -> None:
        for item, state in changes:
            self.withdrawn.discard(item)
            self.announced.discard(item)
            if state is State.WITHDRAWN:
                self.withdrawn.add(item)
            elif state is State.ANNOUNCED:
                self.announced.add(item)
        items = [item for item, _ in changes]
        self._rows = [
            (release, self._updated_rows(release, rows, items)) for release, rows in self._rows
        ]
        self.revision += 1

    def _updated_rows(
        self, release: Release, rows: frozenset[int], items: Sequence[str]
    ) -> frozenset[int]:
        changed = zip(release.retriever.catalog.rows(items), items, strict=True)
        updated = set(rows)
        for row, item in changed:
            updated.discard(row)
            if row != PADDING and item in self.withdrawn:
                updated.add(row)
        return rows if updated == rows else frozenset(updated)

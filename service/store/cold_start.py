"""Items that the release does not know: heard of in events, and a moment later in answers.

re4:{newcomers}:takes  stream of who took one, and after what, capped: item_id; user, a digest;
                       after, the known items before it in the user's history, newest last, as JSON.
                       An entry without item_id says that the user is forgotten.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from index.release.reading import Release
from index.retrieval.delta import CONTEXT_ITEMS, Delta, cold_start_vector, median_norm, user_context
from service.errors import HistoryUnavailableError
from service.http.schemas.histories import Event
from service.serving.release_loader import LiveRelease
from service.settings import Settings
from service.store.availability import WithdrawnItems
from service.store.histories import HistoryStore
from service.store.redis_client import ResilientRedis
from service.store.redis_url import Client

TAKES = "re4:{newcomers}:takes"

_LENGTH = 10_000  # of the stream
_LOOK_S = 1.0
_READ = 1000  # entries in one round trip
_NOTED = 100  # takes of one POST /events: each costs a read of a history
_KEPT = 2 * CONTEXT_ITEMS  # items before it, of which another release may know fewer
_TAKERS = 50  # newest of an item that count

log = logging.getLogger(__name__)


class _Take(NamedTuple):
    """at: when, in milliseconds of Redis's clock. after: known items, newest last."""

    at: int
    after: Sequence[str]


@dataclass(frozen=True)
class _Placed:
    """What was made of the takes for one release."""

    release: Release
    length: float
    vectors: Mapping[str, NDArray[np.float32]]
    delta: Delta


class _Offered(NamedTuple):
    """What of it is not withdrawn."""

    of: _Placed
    withdrawn: frozenset[str]
    delta: Delta


class ColdStartItems:
    """The delta beside the release in use, as this process last heard of it.

    An item is in it when several users have taken it, each after some item that the release knows.
    While Redis is away the delta stays as it is.
    """

    def __init__(
        self,
        link: ResilientRedis,
        history: HistoryStore,
        live: LiveRelease,
        withdrawn: WithdrawnItems,
        settings: Settings,
    ) -> None:
        self._link = link
        self._history = history
        self._live = live
        self._withdrawn = withdrawn
        self._limit = settings.new_items
        self._users = settings.new_item_users
        self._age_ms = settings.new_item_hours * 3_600_000
        self._looking = asyncio.Lock()
        self._last = "0-0"
        self._takes: dict[str, dict[str, _Take]] = {}  # of each item by user, newest last
        self._changed: set[str] = set()  # items whose takes are others than when they were placed
        self._placed: _Placed | None = None
        self._offered: _Offered | None = None

    def __len__(self) -> int:
        return len(self._placed.delta) if self._placed else 0

    def delta(self, release: Release) -> Delta | None:
        """What stands beside the release and is not withdrawn; None if nothing does."""
        placed, withdrawn = self._placed, self._withdrawn.items
        if placed is None or placed.release is not release:
            return None
        offered = self._offered
        if offered is None or offered.of is not placed or offered.withdrawn is not withdrawn:
            offered = _Offered(placed, withdrawn, placed.delta.without(withdrawn))
            self._offered = offered
        return offered.delta or None

    # --- telling ---

    def observe_events(self, events: Sequence[Event]) -> None:
        """Note, aside, which items of the events are new, and after what they were taken."""
        release = self._live.release
        if release is None or not self._limit:
            return
        rows = release.retriever.catalog.rows(event.item_id for event in events)
        new = [event for event, row in zip(events, rows, strict=True) if not row]
        if new:
            self._link.spawn(self._note(release, new[-_NOTED:]))

    async def forget(self, user_id: str) -> None:
        """Have every process leave out what the user took. Raises HistoryUnavailableError."""
        if self._limit:
            await self._tell([{"user": _digest(user_id)}])

    async def _note(self, release: Release, events: Sequence[Event]) -> None:
        with suppress(HistoryUnavailableError):  # noted by the link
            users = [event.user_id for event in events]
            histories = await asyncio.gather(*map(self._history.read, users))
            told = [
                {"item_id": event.item_id, "user": _digest(user), "after": orjson.dumps(after)}
                for event, user, history in zip(events, users, histories, strict=True)
                if (after := _known_before(release, history, event.item_id))
            ]
            if told:
                await self._tell(told)

    async def _tell(self, entries: Sequence[dict[Any, Any]]) -> None:
        async def add(client: Client) -> None:
            pipeline = client.pipeline(transaction=False)
            for entry in entries:
                pipeline.xadd(TAKES, entry, maxlen=_LENGTH, approximate=True)
            await pipeline.execute()

        await self._link.call("newcomers", add)

    # --- hearing ---

    async def watch(self) -> None:
        """Look for takes, and for another release, for ever."""
        while self._limit:
            with suppress(HistoryUnavailableError):  # noted by the link
                await self.poll()
            await asyncio.sleep(_LOOK_S)

    async def poll(self) -> None:
        """Take over what has come since the last look. Raises HistoryUnavailableError."""
        async with self._looking:
            try:
                while await self._read():
                    pass
            finally:
                await self._settle()

    async def _read(self) -> bool:
        """Take over some; whether there may be more."""

        async def ask(client: Client) -> list[Any]:
            entries = await client.xrange(TAKES, f"({self._last}", count=_READ)
            return entries or []

        entries = await self._link.call("newcomers", ask)
        for entry_id, fields in entries:
            self._last = entry_id.decode()
            self._changed.update(self._take(int(self._last.partition("-")[0]), fields))
        return len(entries) == _READ

    def _take(self, at: int, fields: Mapping[bytes, bytes]) -> Collection[str]:
        """Take over one entry; the items that it changes."""
        user = fields[b"user"].decode()
        if b"item_id" not in fields:
            return [item for item, takes in self._takes.items() if takes.pop(user, None)]
        item = fields[b"item_id"].decode("utf-8", "replace")
        takes = self._takes.setdefault(item, {})
        takes.pop(user, None)
        takes[user] = _Take(at, orjson.loads(fields[b"after"]))
        if len(takes) > _TAKERS:
            del takes[next(iter(takes))]
        return [item]

    def _drop_old(self) -> None:
        oldest = time.time() * 1000 - self._age_ms
        for item, takes in [*self._takes.items()]:
            while takes and takes[first := next(iter(takes))].at < oldest:
                del takes[first]
                self._changed.add(item)
            if not takes:
                del self._takes[item]

    # --- placing ---

    async def _settle(self) -> None:
        """Have the delta be of the release in use and of what is known by now."""
        release, placed = self._live.release, self._placed
        is_other = placed is None or placed.release is not release
        if release is None or not (is_other or self._changed):
            return
        self._drop_old()
        changed = {*self._takes} if is_other else {*self._changed}
        self._placed = await asyncio.to_thread(self._place, release, changed)
        self._changed -= changed
        if is_other or len(self._placed.delta) != len(placed.delta if placed else ()):
            log.info("new items", extra={"items": len(self), "release": release.id})

    def _place(self, release: Release, changed: Collection[str]) -> _Placed:
        """In a thread, while nothing is taken over."""
        before = self._placed
        if before is not None and before.release is release:
            length, vectors = before.length, {**before.vectors}
        else:
            length, vectors = median_norm(release.retriever.vectors), {}
        for item in changed:
            vectors.pop(item, None)
            stands = self._stands(release, item)
            if len(stands) >= self._users:
                vectors[item] = cold_start_vector(stands, length)
        offered = sorted(vectors, key=lambda item: -len(self._takes[item]))[: self._limit]
        return _Placed(
            release, length, vectors, Delta.of({item: vectors[item] for item in offered})
        )

    def _stands(self, release: Release, item: str) -> list[NDArray[np.float32]]:
        """Where those stood who took an item; none if the release knows it."""
        retriever = release.retriever
        if any(retriever.catalog.rows([item])):
            return []
        histories = (
            [row for row in retriever.catalog.rows(take.after) if row]
            for take in self._takes.get(item, {}).values()
        )
        return [user_context(retriever.vectors, rows) for rows in histories if rows]


def _known_before(release: Release, history: Sequence[str], item: str) -> list[str]:
    """The newest known items of the history, newest last, before it has the item for the last time.

    None if the item is not in it any more.
    """
    if item not in history:
        return []
    before = history[: len(history) - 1 - history[::-1].index(item)]
    rows = release.retriever.catalog.rows(before)
    return [each for each, row in zip(before, rows, strict=True) if row][-_KEPT:]


def _digest(user_id: str) -> str:
    """Tells users apart, and not who they are."""
    return hashlib.blake2b(user_id.encode(), digest_size=8).hexdigest()

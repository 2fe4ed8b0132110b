"""Items that the release does not know: learned from events, and soon in responses.

re4:{newcomers}:takes  stream of interactions with such items, capped. Fields: item_id; user, a
                       digest; after, the known items before it in the user's history, newest last,
                       as JSON. An entry without item_id says that the user is forgotten.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from index.release.reading import Release
from index.retrieval.delta import CONTEXT_ITEMS, Delta, cold_start_vector, median_norm, user_context
from service.errors import HistoryUnavailableError
from service.settings import Settings
from service.store.availability import WithdrawnItems
from service.store.events import Event
from service.store.histories import HistoryStore
from service.store.redis_client import ResilientRedis
from service.store.redis_url import Client

INTERACTIONS = "re4:{newcomers}:takes"

_MAX_STREAM_LENGTH = 10_000
_POLL_INTERVAL_S = 1.0
_MAX_ENTRIES = 1000  # in one round trip
_MAX_INTERACTIONS = 100  # recorded of one POST /events: each costs a read of a history
_STORED_CONTEXT_ITEMS = (
    2 * CONTEXT_ITEMS
)  # more than are used: another release may know fewer of them
_MAX_USERS = 50  # the newest of an item

log = logging.getLogger(__name__)


class ReleaseInUse(Protocol):
    @property
    def release(self) -> Release | None:
        """The release in use, or None before the first."""
        ...


class _Interaction(NamedTuple):
    """A user's interaction with a new item.

    at_ms: by Redis's clock. context: the known items before it in the history, newest last.
    """

    at_ms: int
    context: Sequence[str]


@dataclass(frozen=True)
class _ReleaseDelta:
    """The delta of one release, and the vectors that it was made of.

    norm: of the vectors.
    """

    release: Release
    norm: float
    vectors: Mapping[str, NDArray[np.float32]]
    delta: Delta


class _AvailableDelta(NamedTuple):
    """The part of a delta that is not withdrawn."""

    source: _ReleaseDelta
    withdrawn: frozenset[str]
    delta: Delta


class ColdStartItems:
    """The delta of new items beside the release in use, as of this process's last poll.

    It holds an item once several users have interacted with it, each after some item that the
    release knows. While Redis is down the delta stays as it is.
    """

    def __init__(
        self,
        redis: ResilientRedis,
        histories: HistoryStore,
        live: ReleaseInUse,
        withdrawn: WithdrawnItems,
        settings: Settings,
    ) -> None:
        self._redis = redis
        self._histories = histories
        self._live = live
        self._withdrawn = withdrawn
        self._max_items = settings.max_cold_start_items
        self._min_users = settings.cold_start_min_users
        self._max_age_ms = settings.cold_start_ttl_hours * 3_600_000
        self._poll_lock = asyncio.Lock()
        self._last_entry_id = "0-0"
        # Item -> user -> the last interaction; users in order of it, newest last.
        self._interactions: dict[str, dict[str, _Interaction]] = {}
        self._changed: set[str] = set()  # items whose interactions changed since the delta was made
        self._built: _ReleaseDelta | None = None
        self._available: _AvailableDelta | None = None

    def __len__(self) -> int:
        return len(self._built.delta) if self._built else 0

    def delta(self, release: Release) -> Delta | None:
        """The new items beside the release that are not withdrawn; None if there are none."""
        built, withdrawn = self._built, self._withdrawn.items
        if built is None or built.release is not release:
            return None
        available = self._available
        if (
            available is None
            or available.source is not built
            or available.withdrawn is not withdrawn
        ):
            available = _AvailableDelta(built, withdrawn, built.delta.without(withdrawn))
            self._available = available
        return available.delta or None

    # --- writing to the stream ---

    def observe_events(self, events: Sequence[Event]) -> None:
        """Record, in the background, the interactions with items that the release does not know."""
        release = self._live.release
        if release is None or not self._max_items:
            return
        rows = release.retriever.catalog.rows(event.item_id for event in events)
        new = [event for event, row in zip(events, rows, strict=True) if not row]
        if new:
            self._redis.spawn(self._record(release, new[-_MAX_INTERACTIONS:]))

    async def forget(self, user_id: str) -> None:
        """Have every process drop the user's interactions. Raises HistoryUnavailableError."""
        if self._max_items:
            await self._publish([{"user": _digest(user_id)}])

    async def _record(self, release: Release, events: Sequence[Event]) -> None:
        with suppress(HistoryUnavailableError):  # recorded by ResilientRedis
            users = [event.user_id for event in events]
            histories = await asyncio.gather(*map(self._histories.read, users))
            entries = [
                {"item_id": event.item_id, "user": _digest(user), "after": orjson.dumps(context)}
                for event, user, history in zip(events, users, histories, strict=True)
                if (context := _known_context(release, history, event.item_id))
            ]
            if entries:
                await self._publish(entries)

    async def _publish(self, entries: Sequence[dict[Any, Any]]) -> None:
        async def add(client: Client) -> None:
            pipeline = client.pipeline(transaction=False)
            for entry in entries:
                pipeline.xadd(INTERACTIONS, entry, maxlen=_MAX_STREAM_LENGTH, approximate=True)
            await pipeline.execute()

        await self._redis.call("newcomers", add)

    # --- reading the stream ---

    async def watch(self) -> None:
        """Poll for interactions, and for another release, for ever."""
        while self._max_items:
            with suppress(HistoryUnavailableError):  # recorded by ResilientRedis
                await self.poll()
            await asyncio.sleep(_POLL_INTERVAL_S)

    async def poll(self) -> None:
        """Apply what was added since the last poll. Raises HistoryUnavailableError."""
        async with self._poll_lock:
            try:
                while await self._read_entries():
                    pass
            finally:
                await self._refresh_delta()

    async def _read_entries(self) -> bool:
        """Apply the next entries; whether there may be more."""

        async def read(client: Client) -> list[Any]:
            entries = await client.xrange(
                INTERACTIONS, f"({self._last_entry_id}", count=_MAX_ENTRIES
            )
            return entries or []

        entries = await self._redis.call("newcomers", read)
        for entry_id, fields in entries:
            self._last_entry_id = entry_id.decode()
            at_ms = int(self._last_entry_id.partition("-")[0])
            self._changed.update(self._apply(at_ms, fields))
        return len(entries) == _MAX_ENTRIES

    def _apply(self, at_ms: int, fields: Mapping[bytes, bytes]) -> Collection[str]:
        """Apply one entry; the items that it changes."""
        user = fields[b"user"].decode()
        if b"item_id" not in fields:
            return [item for item, users in self._interactions.items() if users.pop(user, None)]
        item = fields[b"item_id"].decode("utf-8", "replace")
        users = self._interactions.setdefault(item, {})
        users.pop(user, None)
        users[user] = _Interaction(at_ms, orjson.loads(fields[b"after"]))
        if len(users) > _MAX_USERS:
            del users[next(iter(users))]
        return [item]

    def _drop_expired(self) -> None:
        oldest_ms = time.time() * 1000 - self._max_age_ms
        for item, users in [*self._interactions.items()]:
            while users and users[first := next(iter(users))].at_ms < oldest_ms:
                del users[first]
                self._changed.add(item)
            if not users:
                del self._interactions[item]

    # --- building the delta ---

    async def _refresh_delta(self) -> None:
        """Rebuild the delta if the release or the interactions have changed."""
        release, built = self._live.release, self._built
        is_new_release = built is None or built.release is not release
        if release is None or not (is_new_release or self._changed):
            return
        self._drop_expired()
        changed = {*self._interactions} if is_new_release else {*self._changed}
        self._built = await asyncio.to_thread(self._build, release, changed)
        self._changed -= changed
        if is_new_release or len(self._built.delta) != len(built.delta if built else ()):
            log.info("new items", extra={"items": len(self), "release": release.id})

    def _build(self, release: Release, changed: Collection[str]) -> _ReleaseDelta:
        """Runs in a thread, while no entry is applied."""
        previous = self._built
        if previous is not None and previous.release is release:
            norm, vectors = previous.norm, {**previous.vectors}
        else:
            norm, vectors = median_norm(release.retriever.vectors), {}
        for item in changed:
            vectors.pop(item, None)
            contexts = self._user_contexts(release, item)
            if len(contexts) >= self._min_users:
                vectors[item] = cold_start_vector(contexts, norm)
        most_users_first = sorted(vectors, key=lambda item: -len(self._interactions[item]))
        chosen = {item: vectors[item] for item in most_users_first[: self._max_items]}
        return _ReleaseDelta(release, norm, vectors, Delta.of(chosen))

    def _user_contexts(self, release: Release, item: str) -> list[NDArray[np.float32]]:
        """The context (D,) of each user of the item; none if the release knows the item."""
        retriever = release.retriever
        if any(retriever.catalog.rows([item])):
            return []
        contexts = (
            [row for row in retriever.catalog.rows(interaction.context) if row]
            for interaction in self._interactions.get(item, {}).values()
        )
        return [user_context(retriever.vectors, rows) for rows in contexts if rows]


def _known_context(release: Release, history: Sequence[str], item: str) -> list[str]:
    """The newest known items before the item's last occurrence in the history, newest last.

    Empty if the item is no longer in the history.
    """
    if item not in history:
        return []
    before = history[: len(history) - 1 - history[::-1].index(item)]
    rows = release.retriever.catalog.rows(before)
    return [known for known, row in zip(before, rows, strict=True) if row][-_STORED_CONTEXT_ITEMS:]


def _digest(user_id: str) -> str:
    """Distinguishes users without identifying them."""
    return hashlib.blake2b(user_id.encode(), digest_size=8).hexdigest()

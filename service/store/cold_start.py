"""Announced items that the release does not know: learned from events, and soon in responses."""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.release.reading import Release
from index.retrieval.delta import CONTEXT_ITEMS, Delta, cold_start_vector, median_norm, user_context
from service.errors import HistoryUnavailableError
from service.settings import Settings
from service.store.availability import ItemAvailability
from service.store.cold_start_store import MAX_ITEMS, ColdStartStore, Interaction
from service.store.details_in_use import DetailsInUse
from service.store.events import Event
from service.store.histories import HistoryStore
from service.store.offered_items import OfferedItems
from service.store.redis_client import ResilientRedis
from service.store.release_in_use import ReleaseInUse

_POLL_INTERVAL_S = 1.0
_MAX_INTERACTIONS = 100  # recorded of one POST /events: each costs a read of a history
_STORED_CONTEXT_ITEMS = (
    2 * CONTEXT_ITEMS
)  # more than are used: another release may know fewer of them

log = logging.getLogger(__name__)


class _Item(NamedTuple):
    """vector (D,): None for too few users. expires_at_ms: when its next user no longer counts."""

    vector: NDArray[np.float32] | None
    users: int
    expires_at_ms: float


@dataclass(frozen=True)
class _ReleaseDelta:
    """The delta of one release, and what it was made of. norm: of the vectors. users: of each."""

    release: Release
    norm: float
    items: Mapping[str, _Item]
    delta: Delta
    users: Mapping[str, int]


class ColdStartItems:
    """The delta of new items beside the release in use, as of this process's last poll.

    It holds an announced item once several users have interacted with it, each after some item that
    the release knows. While Redis is down the delta stays as it is.
    """

    def __init__(
        self,
        redis: ResilientRedis,
        histories: HistoryStore,
        live: ReleaseInUse,
        availability: ItemAvailability,
        details: DetailsInUse,
        settings: Settings,
    ) -> None:
        self._redis = redis
        self._histories = histories
        self._live = live
        self._availability = availability
        self._max_items = settings.max_cold_start_items
        self._min_users = settings.cold_start_min_users
        self._max_age_ms = settings.cold_start_ttl_hours * 3_600_000
        self._store = ColdStartStore(redis, self._max_age_ms)
        self._poll_lock = asyncio.Lock()
        self._changes: dict[str, float] = {}  # item -> its last change, in this order
        self._unread: set[str] = set()  # items that changed since the delta was made
        self._built: _ReleaseDelta | None = None
        self._offered = OfferedItems(availability, details, self._max_items)

    def __len__(self) -> int:
        release = self._live.release
        return len(self.delta(release) or ()) if release else 0

    def delta(self, release: Release) -> Delta | None:
        """The announced items beside the release that are not withdrawn; None if there are none."""
        built = self._built
        if built is None or built.release is not release:
            return None
        return self._offered.delta(release, built.delta, built.users) or None

    # --- writing ---

    def observe_events(self, events: Sequence[Event]) -> None:
        """Record, in the background, interactions with announced items.

        Those with others are not: anybody who may send events could invent items.
        """
        release, announced = self._live.release, self._availability.announced
        if release is None or not self._max_items or not announced:
            return
        candidates = [event for event in events if event.item_id in announced]
        rows = release.retriever.catalog.rows(event.item_id for event in candidates)
        new = [event for event, row in zip(candidates, rows, strict=True) if not row]
        if new:
            self._redis.spawn(self._record(release, new[-_MAX_INTERACTIONS:]))

    async def forget(self, user_id: str) -> None:
        """Have every process drop the user's interactions. Raises HistoryUnavailableError."""
        if self._max_items:
            await self.poll()
            await self._store.forget(_now_ms(), user_id, [*self._changes])

    async def _record(self, release: Release, events: Sequence[Event]) -> None:
        with suppress(HistoryUnavailableError):  # recorded by ResilientRedis
            users = [event.user_id for event in events]
            histories = await asyncio.gather(*map(self._histories.read, users))
            taken = [
                (event.item_id, user, context)
                for event, user, history in zip(events, users, histories, strict=True)
                if (context := _known_context(release, history, event.item_id))
            ]
            if taken:
                await self._store.record(_now_ms(), taken)

    # --- reading ---

    async def watch(self) -> None:
        """Poll for interactions, and for another release, for ever."""
        while self._max_items:
            with suppress(HistoryUnavailableError):  # recorded by ResilientRedis
                await self.poll()
            await asyncio.sleep(_POLL_INTERVAL_S)

    async def poll(self) -> None:
        """Apply what was added since the last poll. Raises HistoryUnavailableError."""
        async with self._poll_lock:
            size = await self._read_changes()
            if size < len(self._changes):  # Redis has lost its data
                self._unread |= self._changes.keys()
                self._changes.clear()
                await self._read_changes()
            await self._refresh_delta()
            if (release := self._live.release) is not None:
                await self._offered.refresh(release)

    async def _read_changes(self) -> int:
        """Note the items that changed; the number of all items in Redis."""
        oldest = _now_ms() - self._max_age_ms
        while True:
            since = next(reversed(self._changes.values()), oldest)
            size, changed = await self._store.changed(since)
            for item, change in changed.items():
                self._changes.pop(item, None)
                self._changes[item] = change
            self._unread |= changed.keys()
            if not changed:
                break
        # The same items as Redis drops.
        for item, change in [*self._changes.items()]:
            if change > oldest and len(self._changes) <= MAX_ITEMS:
                break
            del self._changes[item]
            self._unread.add(item)
        return size

    # --- building the delta ---

    async def _refresh_delta(self) -> None:
        """Rebuild the delta if the release or the interactions have changed."""
        release, built = self._live.release, self._built
        if release is None:
            return
        is_new_release = built is None or built.release is not release
        if built is None or is_new_release:
            unread = {*self._changes}
        else:
            now_ms = _now_ms()
            expired = {item for item, state in built.items.items() if state.expires_at_ms <= now_ms}
            unread = self._unread | expired
        if not (is_new_release or unread):
            return
        interactions = await self._store.read([*unread & self._changes.keys()])
        self._built = await asyncio.to_thread(self._build, release, unread, interactions)
        self._unread -= unread
        if is_new_release or len(self._built.delta) != len(built.delta if built else ()):
            facts = {"items": len(self._built.delta), "release": release.id}
            log.info("new items", extra=facts)

    def _build(
        self,
        release: Release,
        changed: Collection[str],
        interactions: Mapping[str, Sequence[Interaction]],
    ) -> _ReleaseDelta:
        """Runs in a thread. changed: items; those without interactions are dropped."""
        previous = self._built
        if previous is not None and previous.release is release:
            norm, items = previous.norm, {**previous.items}
        else:
            retriever = release.retriever
            norm, items = median_norm(retriever.vectors, retriever.encoder.content), {}
        for item in changed:
            items.pop(item, None)
        for item, taken in interactions.items():
            if (state := self._state(release, item, taken, norm)) is not None:
                items[item] = state
        users = {item: state.users for item, state in items.items() if state.vector is not None}
        most_users_first = sorted(users, key=lambda item: (-users[item], item))
        chosen = {
            item: vector
            for item in most_users_first[: self._max_items]
            if (vector := items[item].vector) is not None
        }
        return _ReleaseDelta(release, norm, items, Delta.of(chosen), users)

    def _state(
        self, release: Release, item: str, taken: Sequence[Interaction], norm: float
    ) -> _Item | None:
        """None if the release knows the item, or no interaction counts any more."""
        retriever = release.retriever
        oldest_ms = _now_ms() - self._max_age_ms
        valid = [interaction for interaction in taken if interaction.at_ms > oldest_ms]
        if not valid or any(retriever.catalog.rows([item])):
            return None
        known = (
            [row for row in retriever.catalog.rows(interaction.context) if row]
            for interaction in valid
        )
        content = retriever.encoder.content
        contexts = [user_context(retriever.vectors, rows, content) for rows in known if rows]
        is_enough = len(contexts) >= self._min_users
        vector = cold_start_vector(contexts, norm, content) if is_enough else None
        return _Item(vector, len(contexts), valid[0].at_ms + self._max_age_ms)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _known_context(release: Release, history: Sequence[str], item: str) -> list[str]:
    """The newest known items before the item's last occurrence in the history, newest last.

    Empty if the item is no longer in the history.
    """
    if item not in history:
        return []
    before = history[: len(history) - 1 - history[::-1].index(item)]
    rows = release.retriever.catalog.rows(before)
    return [known for known, row in zip(before, rows, strict=True) if row][-_STORED_CONTEXT_ITEMS:]

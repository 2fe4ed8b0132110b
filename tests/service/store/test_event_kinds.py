"""What events of each kind do to a history, and to the items that a user has met."""

import time
from collections.abc import Callable, Sequence
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from index.event_kinds import EventKinds
from service.settings import Settings
from service.store.events import Event
from service.store.histories import HistoryStore
from service.store.seen_items import ALL_SEEN, SeenItems
from tests.evidence.redis_servers import RedisServer
from tests.service.history_store import started

pytestmark = pytest.mark.anyio

MakeSettings = Callable[..., Settings]
ANY_TIME = SeenItems(since=-1)


def events(*given: tuple[str, str | None, float], user: str = "anna") -> list[Event]:
    """Of item, kind and time each."""
    return [
        Event(user_id=user, item_id=item, event=kind, timestamp=moment)
        for item, kind, moment in given
    ]


def key(name: str, user: str = "anna") -> str:
    return f"re4:{{{crc32(user.encode()) % 64}}}:{name}:{user}"


async def seen(store: HistoryStore, wanted: SeenItems = ANY_TIME) -> list[str]:
    return sorted((await store.read_user("anna", wanted)).seen)


async def test_only_some_kinds_join_the_history(settings: MakeSettings) -> None:
    async with started(settings()) as store:
        await store.append(
            events(
                *(("a", None, 1), ("b", "view", 2), ("c", "impression", 3), ("d", "dislike", 4)),
                *(("e", "purchase", 5), ("f", "return", 6), ("g", "listened", 7)),
            )
        )
        assert await store.read("anna") == ["a", "b", "e", "g"]
        assert await seen(store) == ["a", "b", "d", "e", "f", "g"]


async def test_what_a_kind_does_is_a_setting(settings: MakeSettings) -> None:
    chosen = settings(event_effects="impression=exclude,view=none,return=history")
    async with started(chosen) as store:
        await store.append(
            events(
                ("a", "view", 1), ("b", "impression", 2), ("c", "return", 3), ("d", "dislike", 4)
            )
        )
        assert await store.read("anna") == ["c"]
        assert await seen(store) == ["b", "c", "d"]


async def test_a_return_takes_the_newest_entry_of_its_item_back(settings: MakeSettings) -> None:
    async with started(settings()) as store:
        await store.append(events(("a", "purchase", 1), ("b", "view", 2), ("a", "purchase", 3)))
        await store.append(events(("c", "purchase", 4), ("a", "return", 5)))
        assert await store.read("anna") == ["a", "b", "c"]
        await store.append(events(("a", "return", 6), ("a", "return", 7), ("x", "return", 8)))
        assert await store.read("anna") == ["b", "c"]


async def test_what_came_after_a_return_is_not_undone(settings: MakeSettings) -> None:
    async with started(settings()) as store:
        await store.append(events(("a", "view", 10), ("b", "view", 11), ("a", "return", 9)))
        assert await store.read("anna") == ["a", "b"]


async def test_repeats_that_follow_one_another_are_one_entry(settings: MakeSettings) -> None:
    async with started(settings()) as store:
        await store.append(events(("a", "view", 1), ("a", "cart", 2), ("a", "purchase", 3)))
        await store.append(events(("b", "view", 4), ("a", "view", 5), ("a", "view", 4.5)))
        assert await store.read("anna") == ["a", "b", "a"]
        await store.append(events(("b", "return", 6)))
        assert await store.read("anna") == ["a"], "nothing is between the two any more"


async def test_repeats_may_be_kept(settings: MakeSettings) -> None:
    async with started(settings(keep_repeats=True)) as store:
        await store.append(events(("a", "view", 1), ("a", "purchase", 2), ("a", "view", 1.5)))
        assert await store.read("anna") == ["a", "a", "a"]


async def test_items_are_seen_longer_than_they_are_in_the_history(settings: MakeSettings) -> None:
    async with started(settings(history_max_length=2, seen_max_items=4)) as store:
        await store.append(events(*((f"{number}", None, number) for number in range(1, 7))))
        assert await store.read("anna") == ["5", "6"]
        assert await seen(store) == ["3", "4", "5", "6"]
        await store.append(events(("3", None, 8), ("7", "view", 7)))
        assert await seen(store) == ["3", "5", "6", "7"], "the oldest event leaves first"


async def test_seen_items_may_be_switched_off(settings: MakeSettings, tcp: RedisServer) -> None:
    async with started(settings(redis_url=tcp.url, seen_max_items=0)) as store:
        await store.append(events(("a", "dislike", 1)))
        assert tcp.execute("EXISTS", key("met")) == 0
        assert await seen(store) == []


async def test_seen_items_by_kind_and_time(settings: MakeSettings) -> None:
    async with started(settings()) as store:
        await store.append(
            events(
                *(("a", "purchase", 100), ("b", "view", 200), ("b", "purchase", 50)),
                *(("1:c", None, 150), ("c", "1:", 300), ("d", "ansehen-ä", 400)),
            )
        )
        assert await seen(store, SeenItems(frozenset({"purchase"}))) == ["a", "b"]
        assert await seen(store, SeenItems(frozenset({"purchase"}), since=60)) == ["a"]
        assert await seen(store, SeenItems(since=150)) == ["1:c", "b", "c", "d"]
        assert await seen(store, SeenItems(frozenset({"ansehen-ä", "1:"}))) == ["c", "d"]
        await store.append(events(("b", "purchase", 120)))
        assert await seen(store, SeenItems(frozenset({"purchase"}), since=110)) == ["b"]


async def test_what_was_met_is_read_only_where_the_history_lacks_some(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    async with started(settings(redis_url=tcp.url, history_max_length=3)) as store:
        await store.append(events(("a", "view", 1), ("b", "view", 2), ("a", "view", 3)))
        assert (await store.read_user("anna", ALL_SEEN)).seen == []
        await store.append(events(("c", "view", 4)))
        assert sorted((await store.read_user("anna", ALL_SEEN)).seen) == ["a", "b", "c"]
    async with started(settings(redis_url=tcp.url)) as store:
        await store.append(
            events(*((f"{number}", None, number) for number in range(9)), user="ben")
        )
    async with started(settings(redis_url=tcp.url, history_max_length=3)) as store:
        assert len((await store.read_user("ben", ALL_SEEN)).seen) == 9, "it was longer then"


async def test_a_forgotten_user_has_met_nothing(settings: MakeSettings, tcp: RedisServer) -> None:
    async with started(settings(redis_url=tcp.url, history_ttl_days=2)) as store:
        await store.append(events(("a", "dislike", 1), ("b", "view", 2)))
        assert 172_700 < tcp.execute("TTL", key("met")) <= 172_800
        await store.forget("anna")
        assert tcp.execute("EXISTS", key("met")) == 0
        assert await seen(store) == []


KINDS = st.sampled_from([None, "view", "purchase", "return", "dislike", "impression"])
EVENTS = st.lists(st.tuples(st.sampled_from("abc"), KINDS, st.integers(1, 6)), max_size=12)
LENGTH, LATENESS_S = 4, 4


class Oracle:
    """A history as the README says that it is."""

    def __init__(self, folds: bool) -> None:
        self._entries: list[tuple[float, str]] = []
        self._folds = folds
        self.met: dict[tuple[str, str], float] = {}

    @property
    def items(self) -> list[str]:
        return [item for _, item in self._entries]

    def append(self, batch: Sequence[tuple[str, str | None, float]]) -> None:
        newest = self._entries[-1][0] if self._entries else 0.0
        for item, kind, moment in batch:
            effect = EventKinds.of(()).effect(kind)
            if effect not in ("shown", "none"):
                met = (item, kind or "")
                self.met[met] = max(self.met.get(met, 0.0), moment)
            if effect == "history" and moment >= newest - LATENESS_S:
                later = [entry for entry in self._entries if entry[0] > moment]
                earlier = self._entries[: len(self._entries) - len(later)]
                self._entries = self._folded([*earlier, (moment, item), *later])
                newest = max(newest, moment)
            elif effect == "undo":
                self._undo(item, moment)
        self._entries = self._entries[-LENGTH:]

    def _undo(self, item: str, moment: float) -> None:
        for position in reversed(range(len(self._entries))):
            if self._entries[position][1] == item and self._entries[position][0] <= moment:
                del self._entries[position]
                self._entries = self._folded(self._entries)
                return

    def _folded(self, entries: list[tuple[float, str]]) -> list[tuple[float, str]]:
        if not self._folds:
            return entries
        return [
            entry
            for position, entry in enumerate(entries, start=1)
            if position == len(entries) or entry[1] != entries[position][1]
        ]


@given(batches=st.lists(EVENTS, max_size=4), folds=st.booleans())
@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_any_events(
    settings: MakeSettings,
    tcp: RedisServer,
    batches: list[list[tuple[str, str | None, float]]],
    folds: bool,
) -> None:
    tcp.execute("FLUSHALL")
    chosen = settings(
        redis_url=tcp.url,
        history_max_length=LENGTH,
        allowed_lateness_hours=LATENESS_S / 3600,
        keep_repeats=not folds,
    )
    oracle = Oracle(folds)
    async with started(chosen) as store:
        for batch in batches:
            if batch:
                await store.append(events(*batch))
            oracle.append(batch)
            user = await store.read_user("anna", ALL_SEEN)
            assert user.history == oracle.items
            met = {item for item, _ in oracle.met}
            assert met - {*user.history} <= {*user.seen} <= met
        for kinds in (None, {"view"}, {"", "return"}):
            for since in (-1, 3):
                wanted = SeenItems(None if kinds is None else frozenset(kinds), since)
                expected = {
                    item
                    for (item, kind), moment in oracle.met.items()
                    if moment >= since and (kinds is None or kind in kinds)
                }
                assert await seen(store, wanted) == sorted(expected)


async def test_an_event_without_a_time_was_seen_now(settings: MakeSettings) -> None:
    async with started(settings()) as store:
        await store.append([Event(user_id="anna", item_id="a", event="dislike")])
        assert await seen(store, SeenItems(since=time.time() - 60)) == ["a"]

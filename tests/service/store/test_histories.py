"""The history store keeps its contract, whichever Redis it has and whatever becomes of that."""

import asyncio
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ConnectionError

from service.errors import HistoryUnavailableError
from service.http.schemas.histories import Event
from service.settings import Settings
from service.store.embedded_redis import EmbeddedRedis, EmbeddedRedisError, redis_server
from service.store.histories import PARTS, Appended, HistoryStore
from service.store.redis_client import ResilientRedis
from service.store.redis_url import Client, Cluster, Own, Sentinels, Single, address_at, address_of
from service.telemetry.metrics import Metrics
from tests.evidence.giving_up import fill, give_up
from tests.evidence.redises import Clustered, RedisServer, Watched, running

pytestmark = pytest.mark.anyio

MakeSettings = Callable[..., Settings]
Answer = TypeVar("Answer")


@pytest.fixture
def tcp(short_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(short_path)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def shared_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="re4-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def watched(shared_path: Path) -> Iterator[str]:
    with Watched(shared_path).running() as servers:
        yield servers.url


@pytest.fixture(scope="module")
def clustered(shared_path: Path) -> Iterator[str]:
    with Clustered(shared_path).running() as servers:
        yield servers.url


PROGRAMS = {"redis://": redis_server()}
if INSTALLED := shutil.which("redis-server"):
    PROGRAMS["redis:// installed"] = INSTALLED


@pytest.fixture(params=["embedded", "redis+sentinel://", "redis+cluster://", *PROGRAMS])
def url(request: pytest.FixtureRequest, short_path: Path) -> Iterator[str | None]:
    """Where the store is to find its Redis, which is empty; None for one of its own."""
    kind: str = request.param
    if kind == "embedded":
        yield None
    elif kind in PROGRAMS:
        server = RedisServer(short_path, program=PROGRAMS[kind])
        with running(server):
            yield server.url
    else:
        several: str = request.getfixturevalue(_FIXTURES[kind])
        yield several
        asyncio.run(flush(several))


_FIXTURES = {"redis+sentinel://": "watched", "redis+cluster://": "clustered"}


async def flush(url: str) -> None:
    address = address_at(url)
    client = address.client()
    nodes = {"target_nodes": RedisCluster.PRIMARIES} if isinstance(client, RedisCluster) else {}
    await client.flushall(**nodes)
    await address.close(client)


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[HistoryStore]:
    metrics = Metrics()
    link = ResilientRedis(address_of(settings), settings, metrics)
    await link.start()
    try:
        yield HistoryStore(link, settings, metrics)
    finally:
        await link.close()


def events(user: str, *items: str) -> list[Event]:
    return [Event(user_id=user, item_id=item) for item in items]


@asynccontextmanager
async def beside(settings: Settings) -> AsyncIterator[Client]:
    """A client of the same Redis that knows nothing of the store."""
    address = address_of(settings)
    client = address.client()
    try:
        yield client
    finally:
        if isinstance(address, Own):
            await client.aclose()  # and not the server
        else:
            await address.close(client)


def key(user: str, name: str) -> str:
    """Where the module says that it is."""
    return f"re4:{{{crc32(user.encode()) % 64}}}:{name}"


async def stream(client: Client, *users: str) -> list[dict[str, str]]:
    """The entries of the parts of these users, in order."""
    parts = [await client.xrange(key(user, "events")) for user in users]
    return [
        {name.decode(): value.decode() for name, value in fields.items()}
        for entries in parts
        for _, fields in entries
    ]


def failures(store: HistoryStore) -> float:
    counter = store._metrics.history_failures.collect()
    return sum(s.value for m in counter for s in m.samples if s.name.endswith("_total"))


# --- the contract, whichever Redis ---


async def test_an_unknown_user_has_no_history(settings: MakeSettings, url: str | None) -> None:
    async with started(settings(redis_url=url)) as store:
        assert store._link.up
        assert await store.read("nobody") == []


async def test_histories_are_newest_last_and_apart(settings: MakeSettings, url: str | None) -> None:
    async with started(settings(redis_url=url)) as store:
        await store.append([*events("anna", "a", "b"), *events("bert", "x"), *events("anna", "c")])
        await store.append(events("anna", "a"))

        assert await store.read("anna") == ["a", "b", "c", "a"]
        assert await store.read("bert") == ["x"]


async def test_a_history_keeps_its_newest_items(settings: MakeSettings, url: str | None) -> None:
    async with started(settings(redis_url=url, history_max_length=3)) as store:
        await store.append(events("anna", "a", "b"))
        await store.append(events("anna", "c", "d"))

        assert await store.read("anna") == ["b", "c", "d"]


async def test_ids_may_be_any_text(settings: MakeSettings, url: str | None) -> None:
    user, items = "käthe:*\n{}", ["", "雪", "\x00", "a b\r\n", "x" * 512]
    async with started(settings(redis_url=url)) as store:
        await store.append([Event.model_construct(user_id=user, item_id=item) for item in items])

        assert await store.read(user) == items


async def test_every_event_goes_to_the_stream(settings: MakeSettings, url: str | None) -> None:
    chosen = settings(redis_url=url)
    async with started(chosen) as store:
        full = Event(user_id="u", item_id="i", timestamp=12.5, event="view", event_id="e1")
        await store.append([full, *events("v", "j")])
        async with beside(chosen) as client:
            first, second = await stream(client, "u", "v")

    assert first == {
        "user_id": "u",
        "item_id": "i",
        "timestamp": "12.5",
        "event": "view",
        "event_id": "e1",
    }
    assert set(second) == {"user_id", "item_id", "timestamp"}
    assert float(second["timestamp"]) > 1.7e9


async def test_the_stream_is_capped(settings: MakeSettings, url: str | None) -> None:
    chosen = settings(redis_url=url, event_stream_max_length=100 * PARTS)
    async with started(chosen) as store:
        for _ in range(5):
            await store.append(events("u", *("i" for _ in range(200))))
        async with beside(chosen) as client:
            assert 100 <= await client.xlen(key("u", "events")) < 400


async def test_an_event_sent_again_is_there_once(settings: MakeSettings, url: str | None) -> None:
    chosen = settings(redis_url=url)
    sent = [
        Event(user_id=user, item_id=f"item-{number}", event_id=f"{number}")
        for user in ("anna", "bert")
        for number in range(150)
    ]
    async with started(chosen) as store:
        assert await store.append([*sent, sent[0]]) == Appended(300, 1, 0)
        assert await store.append(sent[140:160]) == Appended(0, 20, 0)
        assert await store.append(events("anna", "x", "x")) == Appended(2, 0, 0)

        assert await store.read("anna") == [f"item-{n}" for n in range(52, 150)] + ["x", "x"]
        async with beside(chosen) as client:
            entries = await stream(client, "anna", "bert")
    ids = Counter((entry["user_id"], entry.get("event_id")) for entry in entries)
    assert ids.pop(("anna", None)) == 2
    assert len(ids) == 300
    assert set(ids.values()) == {1}


async def test_ids_of_events_are_known_for_a_while(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    tcp.start()
    event = Event(user_id="anna", item_id="a", event_id="1")
    async with started(settings(redis_url=tcp.url, event_dedup_ttl_hours=1 / 3600)) as store:
        await store.append([event])
        assert await store.append([event]) == Appended(0, 1, 0)
        assert tcp.ask("TTL", key("anna", "seen:anna")) == 1
        while not (await store.append([event])).accepted:
            await asyncio.sleep(0.05)
        assert await store.read("anna") == ["a", "a"]


async def test_what_nobody_adds_to_is_dropped(settings: MakeSettings, tcp: RedisServer) -> None:
    tcp.start()
    async with started(settings(redis_url=tcp.url, history_ttl_days=2)) as store:
        await store.append(events("anna", "a"))
        tcp.ask("EXPIRE", key("anna", "history:anna"), 5)
        await store.append(events("anna", "b"))
        assert 172_700 < tcp.ask("TTL", key("anna", "history:anna")) <= 172_800
        assert tcp.ask("TTL", key("anna", "seen:anna")) == -2, "none had an id"


async def test_a_forgotten_user_begins_again(settings: MakeSettings, url: str | None) -> None:
    chosen = settings(redis_url=url)
    old = Event(user_id="anna", item_id="a", timestamp=1000.5, event_id="1")
    async with started(chosen) as store:
        await store.append([old, *events("bert", "x")])
        before = int(time.time())
        assert await store.forget("anna") == 1
        assert await store.forget("nobody") == 0

        assert await store.read("anna") == []
        assert await store.read("bert") == ["x"]
        late = old.model_copy(update={"event_id": "2"})
        new = Event(user_id="anna", item_id="b", timestamp=time.time())
        assert await store.append([old, late, new, *events("anna", "c")]) == Appended(2, 0, 2)
        assert await store.read("anna") == ["b", "c"]
        async with beside(chosen) as client:
            first, tombstone, *rest = await stream(client, "anna")
    assert first["item_id"] == "a"
    assert set(tombstone) == {"user_id", "timestamp", "event"}
    assert (tombstone["user_id"], tombstone["event"]) == ("anna", "forget")
    assert before <= int(tombstone["timestamp"]) <= time.time()
    assert [entry["item_id"] for entry in rest] == ["b", "c"]


async def test_what_redis_refuses_does_not_cut_off_the_others(
    settings: MakeSettings, url: str | None
) -> None:
    chosen = settings(redis_url=url, breaker_threshold=1)
    async with started(chosen) as store:
        await store.append(events("anna", "a"))
        async with beside(chosen) as client:
            await client.set(key("bad", "history:bad"), "not a list")
            await client.rpush(key("odd", "history:odd"), b"\xff\xfe")
        for _ in range(3):
            with pytest.raises(HistoryUnavailableError):
                await store.read("bad")
            with pytest.raises(HistoryUnavailableError):
                await store.append([Event(user_id="bad", item_id="a", event_id="1")])

        assert await store.read("anna") == ["a"]
        assert await store.read("odd") == ["\ufffd\ufffd"]


async def test_a_full_redis_refuses_events_whole(settings: MakeSettings, tcp: RedisServer) -> None:
    tcp.start()
    event = Event(user_id="anna", item_id="b", event_id="1")
    async with started(settings(redis_url=tcp.url, breaker_threshold=1)) as store:
        await store.append(events("anna", "a"))
        tcp.ask("CONFIG", "SET", "maxmemory", 1)
        for _ in range(2):
            with pytest.raises(HistoryUnavailableError):
                await store.append([event])
        assert await store.read("anna") == ["a"]
        tcp.ask("CONFIG", "SET", "maxmemory", 0)
        assert await store.append([event]) == Appended(1, 0, 0)
        assert await store.read("anna") == ["a", "b"]


@pytest.mark.parametrize("budget_ms", [2, 5000], ids=lambda ms: f"{ms} ms")
async def test_a_call_given_up_never_answers_the_next(
    settings: MakeSettings, url: str | None, budget_ms: int
) -> None:
    async with started(settings(redis_url=url, breaker_threshold=10**9)) as store:
        await fill(store)
        store._link.budget_s = budget_ms / 1000
        tally = await give_up(store, 500, random.Random(0))
        store._link.budget_s = 5

        assert tally.foreign == 0
        assert tally.answered or budget_ms < 5000
        assert (await store.read("user-7"))[-1].startswith("user-7's ")


async def test_time_in_which_we_were_held_up_is_not_held_against_redis(
    settings: MakeSettings, url: str | None
) -> None:
    async with started(settings(redis_url=url, breaker_threshold=1)) as store:
        await store.append(events("anna", "a"))
        store._link.budget_s = 0.02
        for _ in range(5):
            reading = asyncio.ensure_future(store.read("anna"))
            for _ in range(5):
                await asyncio.sleep(0)
            time.sleep(0.05)  # as the loading of a release may, with the interpreter's lock
            assert await reading == ["a"]


async def test_reads_at_one_time_go_to_redis_together(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    tcp.start()
    chosen = settings(redis_url=tcp.url)
    async with started(chosen) as store:
        for user in range(100):
            await store.append(events(f"user-{user}", f"item-{user}"))
        before = tcp.ask("INFO")["total_reads_processed"]
        histories = await asyncio.gather(*(store.read(f"user-{i}") for i in range(100)))
        after = tcp.ask("INFO")["total_reads_processed"]

    assert histories == [[f"item-{user}"] for user in range(100)]
    assert after - before < 10


# --- what becomes of Redis ---


async def test_redis_down_at_the_start_is_found_when_it_comes(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    async with started(settings(redis_url=tcp.url, breaker_cooldown_s=0.01)) as store:
        assert not store._link.up
        for _ in range(20):
            with pytest.raises(HistoryUnavailableError):
                await store.read("anna")
        tcp.start()
        assert await until_read(store, "anna") == []
        assert store._link.up


async def until_done(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """What is answered as soon as anything can be."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except HistoryUnavailableError:
                await asyncio.sleep(0.01)


async def until_read(store: HistoryStore, user: str) -> list[str]:
    return await until_done(lambda: store.read(user))


async def test_redis_may_go_away_and_come_back(settings: MakeSettings, tcp: RedisServer) -> None:
    tcp.start()
    async with started(settings(redis_url=tcp.url, breaker_cooldown_s=0.01)) as store:
        await store.append(events("anna", "a"))
        tcp.stop()
        with pytest.raises(HistoryUnavailableError):
            await store.read("anna")
        with pytest.raises(HistoryUnavailableError):
            await store.append(events("anna", "b"))
        assert not store._link.up
        tcp.start()

        assert await until_read(store, "anna") == []
        await store.append(events("anna", "c"))
        assert await store.read("anna") == ["c"]


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
@pytest.mark.parametrize("kind", ["Sentinels", "Cluster"])
async def test_a_master_may_be_replaced(
    settings: MakeSettings, short_path: Path, kind: str, signal_number: int
) -> None:
    servers = Watched(short_path) if kind == "Sentinels" else Clustered(short_path, replica=True)
    changes = {"redis_timeout_ms": 200, "breaker_cooldown_s": 0.05}
    with servers.running():
        async with started(settings(redis_url=servers.url, **changes)) as store:
            users = [f"user-{number}" for number in range(20)]  # in every part of the Cluster
            sent = [Event(user_id=user, item_id="a", event_id="1") for user in users]
            await until_done(lambda: store.append(sent))
            servers.masters[0].send(signal_number)
            while store._link.up:
                with suppress(HistoryUnavailableError):
                    await asyncio.gather(*map(store.read, users))

            await until_done(lambda: asyncio.gather(*map(store.read, users)))
            await until_done(lambda: store.append(sent))
            assert [await until_read(store, user) for user in users] == [["a"]] * len(users)
            servers.masters[0].send(signal.SIGCONT)


async def test_a_redis_that_hangs_is_soon_left_alone(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    tcp.start()
    chosen = settings(
        history=tcp.url,
        redis_timeout_ms=20,
        breaker_threshold=3,
        breaker_cooldown_s=3600,
    )
    async with started(chosen) as store:
        tcp.send(signal.SIGSTOP)
        for _ in range(10):
            with pytest.raises(HistoryUnavailableError):
                await store.read("anna")
        tcp.send(signal.SIGCONT)

        assert failures(store) == 3, "after three in a row nothing more was sent"


async def test_nobody_waits_for_a_redis_that_is_left_alone(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    tcp.start()
    chosen = settings(redis_url=tcp.url, breaker_threshold=1, breaker_cooldown_s=0.05)
    async with started(chosen) as store:
        await store.append(events("anna", "a"))
        tcp.send(signal.SIGSTOP)
        store._link.budget_s = 0.02
        with pytest.raises(HistoryUnavailableError):
            await store.read("anna")
        store._link.budget_s = 3600  # of the trials, which hang
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            with pytest.raises(HistoryUnavailableError):
                await store.read("anna")
            await asyncio.sleep(0)
        tcp.send(signal.SIGCONT)

        assert await until_read(store, "anna") == ["a"]


async def test_a_redis_of_our_own_is_started_again(settings: MakeSettings) -> None:
    chosen = settings(breaker_cooldown_s=0.01)
    async with started(chosen) as store:
        await store.append(events("anna", "a"))
        async with beside(chosen) as client:
            os.kill((await client.info())["process_id"], signal.SIGKILL)

        assert await until_read(store, "anna") == ["a"]


async def test_a_redis_of_our_own_keeps_its_data_and_ends_with_us(settings: MakeSettings) -> None:
    chosen = settings()
    async with started(chosen) as store:
        await store.append(events("anna", "a"))
    async with beside(chosen) as client:
        with pytest.raises(ConnectionError):
            await client.ping()
    async with started(chosen) as store:
        assert await store.read("anna") == ["a"]


async def test_services_share_the_redis_of_one_folder(settings: MakeSettings) -> None:
    chosen = settings(breaker_cooldown_s=0.01)
    async with started(chosen) as second:
        async with started(chosen) as third:
            await second.append(events("anna", "a"))
            assert await third.read("anna") == ["a"]
        assert await second.read("anna") == ["a"], "it was not the third's to stop"

    async with started(chosen) as first:
        link = ResilientRedis(address_of(chosen), chosen, Metrics())
        await link.start()
        await first._link.close()
        store = HistoryStore(link, chosen, Metrics())
        assert await until_read(store, "anna") == ["a"], "started again by who still needs it"
        await link.close()


def test_a_folder_that_cannot_hold_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedRedisError, match="at most 107; choose a shorter history folder"):
        EmbeddedRedis(tmp_path / ("x" * 200))


async def test_a_folder_that_cannot_be_used_leaves_us_without_histories(
    settings: MakeSettings, short_path: Path
) -> None:
    (short_path / "file").write_text("")
    async with started(settings(embedded_redis_folder=short_path / "file")) as store:
        assert not store._link.up
        with pytest.raises(HistoryUnavailableError):
            await store.read("anna")


def test_the_settings_say_which_redis(settings: MakeSettings) -> None:
    assert type(address_of(settings(redis_url="rediss://somewhere:1"))) is Single
    assert type(address_of(settings(redis_url="redis+sentinel://a:1,b/name?db=2"))) is Sentinels
    assert type(address_of(settings(redis_url="rediss+cluster://a:1,b"))) is Cluster
    own = address_of(Settings(releases=Path("root")))
    assert isinstance(own, Own)
    client = own.client()
    assert isinstance(client, Redis)
    assert client.connection_pool.connection_kwargs["path"] == "root/history/redis.sock"

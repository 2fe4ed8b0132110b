"""The history store keeps its contract with every kind of Redis, whatever happens to it."""

import asyncio
import itertools
import math
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
from redis.asyncio import RedisCluster
from redis.exceptions import ConnectionError

from service.errors import HistoryUnavailableError
from service.settings import Settings
from service.store.embedded_redis import redis_server
from service.store.events import Event
from service.store.histories import Appended, HistoryStore, StoredUser
from service.store.history_reads import aligned
from service.store.keys import PARTITIONS
from service.store.redis_client import ResilientRedis, deployment_of
from service.store.redis_url import Client, Embedded, parse_url
from service.store.seen_items import ALL_SEEN, SeenItems
from service.store.shown_items import ShownCap
from service.telemetry.metrics import Metrics
from tests.evidence.cancelled_calls import cancel_calls, store_histories
from tests.evidence.redis_servers import ClusterServers, RedisServer, SentinelServers, running
from tests.service.history_store import started

pytestmark = pytest.mark.anyio

MakeSettings = Callable[..., Settings]
Result = TypeVar("Result")


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
def sentinel_url(shared_path: Path) -> Iterator[str]:
    with SentinelServers(shared_path).running() as servers:
        yield servers.url


@pytest.fixture(scope="module")
def cluster_url(shared_path: Path) -> Iterator[str]:
    with ClusterServers(shared_path).running() as servers:
        yield servers.url


PROGRAMS = {"redis://": redis_server()}
if INSTALLED := shutil.which("redis-server"):
    PROGRAMS["redis:// installed"] = INSTALLED


@pytest.fixture(params=["embedded", "redis+sentinel://", "redis+cluster://", *PROGRAMS])
def url(request: pytest.FixtureRequest, short_path: Path) -> Iterator[str | None]:
    """The URL of an empty Redis; None for an embedded one."""
    kind: str = request.param
    if kind == "embedded":
        yield None
    elif kind in PROGRAMS:
        server = RedisServer(short_path, program=PROGRAMS[kind])
        with running(server):
            yield server.url
    else:
        shared_url: str = request.getfixturevalue(_FIXTURES[kind])
        yield shared_url
        asyncio.run(flush(shared_url))


_FIXTURES = {"redis+sentinel://": "sentinel_url", "redis+cluster://": "cluster_url"}


async def flush(url: str) -> None:
    deployment = parse_url(url)
    client = deployment.client()
    nodes = {"target_nodes": RedisCluster.PRIMARIES} if isinstance(client, RedisCluster) else {}
    await client.flushall(**nodes)
    await deployment.close(client)


def events(user: str, *items: str) -> list[Event]:
    return [Event(user_id=user, item_id=item) for item in items]


@asynccontextmanager
async def separate_client(settings: Settings) -> AsyncIterator[Client]:
    """A client of the same Redis, separate from the store's."""
    deployment = deployment_of(settings)
    client = deployment.client()
    try:
        yield client
    finally:
        if isinstance(deployment, Embedded):
            await client.aclose()  # and not the server
        else:
            await deployment.close(client)


def key(user: str, name: str) -> str:
    """As in the docstring of service.store.histories."""
    return f"re4:{{{crc32(user.encode()) % 64}}}:{name}"


async def stream(client: Client, *users: str) -> list[dict[str, str]]:
    """The entries of the partitions of these users, in order."""
    partitions = [await client.xrange(key(user, "events")) for user in users]
    return [
        {name.decode(): value.decode() for name, value in fields.items()}
        for entries in partitions
        for _, fields in entries
    ]


def failures(store: HistoryStore) -> float:
    counter = store._metrics.redis_failures.collect()
    return sum(s.value for m in counter for s in m.samples if s.name.endswith("_total"))


# --- the contract, with every kind of Redis ---


async def test_an_unknown_user_has_no_history(settings: MakeSettings, url: str | None) -> None:
    async with started(settings(redis_url=url)) as store:
        assert store._redis.up
        assert await store.read("nobody") == []


async def test_histories_are_newest_last_and_separate(
    settings: MakeSettings, url: str | None
) -> None:
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
        async with separate_client(chosen) as client:
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


async def test_events_of_a_batch_without_times_keep_their_order(
    settings: MakeSettings, url: str | None
) -> None:
    """A training run orders by time, and events of one time at random."""
    chosen = settings(redis_url=url)
    async with started(chosen) as store:
        await store.append(events("u", *(f"item {number}" for number in range(1000))))
        async with separate_client(chosen) as client:
            written = await stream(client, "u")
        newest = await store.read("u")

    assert [fields["item_id"] for fields in written] == [f"item {n}" for n in range(1000)]
    times = [float(fields["timestamp"]) for fields in written]
    assert all(before < after for before, after in itertools.pairwise(times))
    assert newest[-1] == "item 999"


async def test_the_stream_is_capped(settings: MakeSettings, url: str | None) -> None:
    chosen = settings(redis_url=url, event_stream_max_length=100 * PARTITIONS)
    async with started(chosen) as store:
        for _ in range(5):
            await store.append(events("u", *("i" for _ in range(200))))
        async with separate_client(chosen) as client:
            assert 100 <= await client.xlen(key("u", "events")) < 400


async def test_an_event_sent_again_is_stored_once(settings: MakeSettings, url: str | None) -> None:
    chosen = settings(redis_url=url)
    sent = [
        Event(user_id=user, item_id=f"item-{number}", event_id=f"{number}")
        for user in ("anna", "bert")
        for number in range(150)
    ]
    async with started(chosen) as store:
        assert await store.append([*sent, sent[0]]) == Appended(300, 1, 0)
        assert await store.append(sent[140:160]) == Appended(0, 20, 0)
        assert await store.append(events("anna", "x", "y")) == Appended(2, 0, 0)

        assert await store.read("anna") == [f"item-{n}" for n in range(52, 150)] + ["x", "y"]
        async with separate_client(chosen) as client:
            entries = await stream(client, "anna", "bert")
    ids = Counter((entry["user_id"], entry.get("event_id")) for entry in entries)
    assert ids.pop(("anna", None)) == 2
    assert len(ids) == 300
    assert set(ids.values()) == {1}


async def test_event_ids_expire(settings: MakeSettings, tcp: RedisServer) -> None:
    tcp.start()
    event = Event(user_id="anna", item_id="a", event_id="1")
    chosen = settings(redis_url=tcp.url, event_dedup_ttl_hours=1 / 3600, keep_repeats=True)
    async with started(chosen) as store:
        await store.append([event])
        assert await store.append([event]) == Appended(0, 1, 0)
        assert tcp.execute("TTL", key("anna", "seen:anna")) == 1
        while not (await store.append([event])).accepted:
            await asyncio.sleep(0.05)
        assert await store.read("anna") == ["a", "a"]


async def test_a_history_without_new_events_expires(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    tcp.start()
    async with started(settings(redis_url=tcp.url, history_ttl_days=2)) as store:
        await store.append(events("anna", "a"))
        tcp.execute("EXPIRE", key("anna", "history:anna"), 5)
        await store.append(events("anna", "b"))
        assert 172_700 < tcp.execute("TTL", key("anna", "history:anna")) <= 172_800
        assert tcp.execute("TTL", key("anna", "seen:anna")) == -2, "none had an id"


async def test_a_forgotten_user_starts_with_an_empty_history(
    settings: MakeSettings, url: str | None
) -> None:
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
        async with separate_client(chosen) as client:
            first, tombstone, *rest = await stream(client, "anna")
    assert first["item_id"] == "a"
    assert set(tombstone) == {"user_id", "timestamp", "event"}
    assert (tombstone["user_id"], tombstone["event"]) == ("anna", "forget")
    assert before <= int(tombstone["timestamp"]) <= time.time()
    assert [entry["item_id"] for entry in rest] == ["b", "c"]


async def test_what_was_met_and_shown_is_read_with_the_history(
    settings: MakeSettings, url: str | None
) -> None:
    chosen = settings(redis_url=url, history_max_length=2)
    wanted = SeenItems(frozenset({"purchase"}), since=1.5)
    cap = ShownCap(1, since=0.0)
    async with started(chosen) as store:
        sent = [
            Event(user_id="anna", item_id=item, event=kind, timestamp=moment)
            for moment, (item, kind) in enumerate(
                [("a", "view"), ("b", "purchase"), ("c", "purchase"), ("d", "impression")], start=1
            )
        ]
        await store.append(sent)
        one, two, three, nobody = await asyncio.gather(
            store.read_user("anna", ALL_SEEN, cap),
            store.read_user("anna", wanted),
            store.read_user("anna", None, cap),
            store.read_user("nobody", ALL_SEEN, cap),
        )
    assert (one.history, sorted(one.seen), one.shown) == (["b", "c"], ["a", "b", "c"], ["d"])
    assert (two.history, sorted(two.seen), two.shown) == (["b", "c"], ["b", "c"], [])
    assert (three.history, three.seen, three.shown) == (["b", "c"], [], ["d"])
    assert nobody == StoredUser([], [], [])


async def test_times_are_read_with_the_history(settings: MakeSettings, url: str | None) -> None:
    cap, some = ShownCap(1, since=0.0), SeenItems(frozenset({"purchase"}), since=0.0)
    async with started(settings(redis_url=url, history_max_length=3)) as store:
        await store.append(
            [
                Event(user_id="anna", item_id=item, event=kind, timestamp=moment)
                for item, kind, moment in (
                    ("a", "view", 1),
                    ("c", "view", 1_000_000.25),
                    ("b", "purchase", 30),
                    ("d", "view", 1_000_001),
                    ("e", "impression", 1_000_002),
                )
            ]
        )
        reads = await asyncio.gather(
            *(store.read_user("anna", seen, cap, True) for seen in (None, ALL_SEEN, some)),
            store.read_user("anna", ALL_SEEN, cap),
            store.read_user("nobody", ALL_SEEN, cap, True),
        )
    for read in reads[:3]:
        assert read.history == ["b", "c", "d"]
        assert read.times == [30, 1_000_000.25, 1_000_001]
        assert read.shown == ["e"]
    assert [sorted(read.seen) for read in reads[:4]] == [[], [*"abcd"], ["b"], [*"abcd"]]
    assert reads[3].times is None
    assert reads[4] == StoredUser([], [], [], [])


def test_events_whose_time_was_never_stored_have_none() -> None:
    assert aligned([], 0) == []
    assert aligned([b"5.5"], 1) == [5.5]
    assert aligned([b"5", b"6", b"7"], 2) == [6, 7]
    [*unknown, known] = aligned([b"0", b"7"], 4)
    assert all(map(math.isnan, unknown))
    assert (len(unknown), known) == (3, 7)


async def test_a_rejected_command_does_not_open_the_circuit(
    settings: MakeSettings, url: str | None
) -> None:
    chosen = settings(redis_url=url, breaker_threshold=1)
    async with started(chosen) as store:
        await store.append(events("anna", "a"))
        async with separate_client(chosen) as client:
            await client.set(key("bad", "history:bad"), "not a list")
            await client.rpush(key("odd", "history:odd"), b"\xff\xfe")
        for _ in range(3):
            with pytest.raises(HistoryUnavailableError):
                await store.read("bad")
            with pytest.raises(HistoryUnavailableError):
                await store.append([Event(user_id="bad", item_id="a", event_id="1")])

        assert await store.read("anna") == ["a"]
        assert await store.read("odd") == ["\ufffd\ufffd"]


async def test_a_full_redis_rejects_whole_events(settings: MakeSettings, tcp: RedisServer) -> None:
    tcp.start()
    event = Event(user_id="anna", item_id="b", event_id="1")
    async with started(settings(redis_url=tcp.url, breaker_threshold=1)) as store:
        await store.append(events("anna", "a"))
        tcp.execute("CONFIG", "SET", "maxmemory", 1)
        for _ in range(2):
            with pytest.raises(HistoryUnavailableError):
                await store.append([event])
        assert await store.read("anna") == ["a"]
        tcp.execute("CONFIG", "SET", "maxmemory", 0)
        assert await store.append([event]) == Appended(1, 0, 0)
        assert await store.read("anna") == ["a", "b"]


@pytest.mark.parametrize("timeout_ms", [2, 5000], ids=lambda ms: f"{ms} ms")
async def test_the_reply_of_a_cancelled_call_never_goes_to_another(
    settings: MakeSettings, url: str | None, timeout_ms: int
) -> None:
    async with started(settings(redis_url=url, breaker_threshold=10**9)) as store:
        await store_histories(store)
        store._redis.timeout_s = timeout_ms / 1000
        counts = await cancel_calls(store, 500, random.Random(0))
        store._redis.timeout_s = 5

        assert counts.foreign == 0
        assert counts.answered or timeout_ms < 5000
        assert (await store.read("user-7"))[-1].startswith("user-7's ")


async def test_time_in_which_this_process_was_blocked_does_not_count(
    settings: MakeSettings, url: str | None
) -> None:
    async with started(settings(redis_url=url, breaker_threshold=1)) as store:
        await store.append(events("anna", "a"))
        store._redis.timeout_s = 0.02
        for _ in range(5):
            reading = asyncio.ensure_future(store.read("anna"))
            for _ in range(5):
                await asyncio.sleep(0)
            time.sleep(0.05)  # as loading a release may, which holds the interpreter's lock
            assert await reading == ["a"]


async def test_concurrent_reads_are_sent_in_batches(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    tcp.start()
    chosen = settings(redis_url=tcp.url)
    async with started(chosen) as store:
        for user in range(100):
            await store.append(events(f"user-{user}", f"item-{user}"))
        before = tcp.execute("INFO")["total_reads_processed"]
        histories = await asyncio.gather(*(store.read(f"user-{i}") for i in range(100)))
        after = tcp.execute("INFO")["total_reads_processed"]

    assert histories == [[f"item-{user}"] for user in range(100)]
    assert after - before < 10


# --- Redis stops, hangs, or is replaced ---


async def test_a_redis_that_was_down_at_the_start_is_used_once_it_is_up(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    async with started(settings(redis_url=tcp.url, breaker_cooldown_s=0.01)) as store:
        assert not store._redis.up
        for _ in range(20):
            with pytest.raises(HistoryUnavailableError):
                await store.read("anna")
        tcp.start()
        assert await read_until_done(store, "anna") == []
        assert store._redis.up


async def retry_until_done(call: Callable[[], Awaitable[Result]]) -> Result:
    """The result of the first call that succeeds."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except HistoryUnavailableError:
                await asyncio.sleep(0.01)


async def read_until_done(store: HistoryStore, user: str) -> list[str]:
    return await retry_until_done(lambda: store.read(user))


async def test_redis_may_stop_and_start_again(settings: MakeSettings, tcp: RedisServer) -> None:
    tcp.start()
    async with started(settings(redis_url=tcp.url, breaker_cooldown_s=0.01)) as store:
        await store.append(events("anna", "a"))
        tcp.stop()
        with pytest.raises(HistoryUnavailableError):
            await store.read("anna")
        with pytest.raises(HistoryUnavailableError):
            await store.append(events("anna", "b"))
        assert not store._redis.up
        tcp.start()

        assert await read_until_done(store, "anna") == []
        await store.append(events("anna", "c"))
        assert await store.read("anna") == ["c"]


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
@pytest.mark.parametrize("kind", ["SentinelMaster", "Cluster"])
async def test_a_master_may_be_replaced(
    settings: MakeSettings, short_path: Path, kind: str, signal_number: int
) -> None:
    servers = (
        SentinelServers(short_path)
        if kind == "SentinelMaster"
        else ClusterServers(short_path, replica=True)
    )
    changes = {"redis_timeout_ms": 200, "breaker_cooldown_s": 0.05}
    with servers.running():
        async with started(settings(redis_url=servers.url, **changes)) as store:
            users = [f"user-{number}" for number in range(20)]  # on every node of the Cluster
            sent = [Event(user_id=user, item_id="a", event_id="1") for user in users]
            await retry_until_done(lambda: store.append(sent))
            servers.masters[0].send(signal_number)
            while store._redis.up:
                with suppress(HistoryUnavailableError):
                    await asyncio.gather(*map(store.read, users))

            await retry_until_done(lambda: asyncio.gather(*map(store.read, users)))
            await retry_until_done(lambda: store.append(sent))
            assert [await read_until_done(store, user) for user in users] == [["a"]] * len(users)
            servers.masters[0].send(signal.SIGCONT)


async def test_a_redis_that_hangs_opens_the_circuit(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    tcp.start()
    chosen = settings(
        redis_url=tcp.url,
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

        assert failures(store) == 3, "no command was sent after three failures in a row"


async def test_no_caller_waits_while_the_circuit_is_open(
    settings: MakeSettings, tcp: RedisServer
) -> None:
    tcp.start()
    chosen = settings(redis_url=tcp.url, breaker_threshold=1, breaker_cooldown_s=0.05)
    async with started(chosen) as store:
        await store.append(events("anna", "a"))
        tcp.send(signal.SIGSTOP)
        store._redis.timeout_s = 0.02
        with pytest.raises(HistoryUnavailableError):
            await store.read("anna")
        store._redis.timeout_s = 3600  # of the trials, which then hang
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            with pytest.raises(HistoryUnavailableError):
                await store.read("anna")
            await asyncio.sleep(0)
        tcp.send(signal.SIGCONT)

        assert await read_until_done(store, "anna") == ["a"]


async def test_an_embedded_redis_is_restarted(settings: MakeSettings) -> None:
    chosen = settings(breaker_cooldown_s=0.01)
    async with started(chosen) as store:
        await store.append(events("anna", "a"))
        async with separate_client(chosen) as client:
            os.kill((await client.info())["process_id"], signal.SIGKILL)

        assert await read_until_done(store, "anna") == ["a"]


async def test_an_embedded_redis_keeps_its_data_and_stops_with_the_service(
    settings: MakeSettings,
) -> None:
    chosen = settings()
    async with started(chosen) as store:
        await store.append(events("anna", "a"))
    async with separate_client(chosen) as client:
        with pytest.raises(ConnectionError):
            await client.ping()
    async with started(chosen) as store:
        assert await store.read("anna") == ["a"]


async def test_services_share_the_embedded_redis_of_one_folder(settings: MakeSettings) -> None:
    chosen = settings(breaker_cooldown_s=0.01)
    async with started(chosen) as second:
        async with started(chosen) as third:
            await second.append(events("anna", "a"))
            assert await third.read("anna") == ["a"]
        assert await second.read("anna") == ["a"], (
            "the third did not start it, so it did not stop it"
        )

    async with started(chosen) as first:
        redis = ResilientRedis(deployment_of(chosen), chosen, Metrics())
        await redis.start()
        await first._redis.close()
        store = HistoryStore(redis, chosen, Metrics())
        assert await read_until_done(store, "anna") == ["a"], (
            "restarted by the service that still needs it"
        )
        await redis.close()


async def test_with_an_unusable_folder_histories_are_unavailable(
    settings: MakeSettings, short_path: Path
) -> None:
    (short_path / "file").write_text("")
    async with started(settings(embedded_redis_folder=short_path / "file")) as store:
        assert not store._redis.up
        with pytest.raises(HistoryUnavailableError):
            await store.read("anna")

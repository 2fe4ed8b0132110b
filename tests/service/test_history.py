"""The history store keeps its contract, whichever Redis it has and whatever becomes of that."""

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from service.embedded import EmbeddedRedis, EmbeddedRedisError, redis_server
from service.errors import HistoryUnavailableError
from service.history import EVENTS, HISTORY, HistoryStore, OwnServer, RemoteServer, server_of
from service.metrics import Metrics
from service.schemas.histories import Event
from service.settings import Settings

pytestmark = pytest.mark.anyio

MakeSettings = Callable[..., Settings]


class Tcp:
    """A redis-server on a TCP port, which can be stopped and started."""

    def __init__(self, program: str, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self._command = [program, "--port", str(self.port), "--dir", str(folder), "--save", ""]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        while not self._answers():
            pass

    def _answers(self) -> bool:
        with redis.Redis(port=self.port, retry=None) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def send(self, signal_number: int) -> None:
        assert self._process is not None
        self._process.send_signal(signal_number)


@pytest.fixture
def tcp(short_path: Path) -> Iterator[Tcp]:
    server = Tcp(redis_server(), short_path)
    yield server
    server.stop()


PROGRAMS = {"embedded": None, "redis://": redis_server()}
if INSTALLED := shutil.which("redis-server"):
    PROGRAMS["redis:// installed"] = INSTALLED


@pytest.fixture(params=PROGRAMS)
def url(request: pytest.FixtureRequest, short_path: Path) -> Iterator[str | None]:
    """Where the store is to find its Redis; None for one of its own."""
    program = PROGRAMS[request.param]
    if program is None:
        yield None
        return
    server = Tcp(program, short_path)
    server.start()
    yield server.url
    server.stop()


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[HistoryStore]:
    store = HistoryStore(server_of(settings), settings, Metrics())
    await store.start()
    try:
        yield store
    finally:
        await store.close()


def events(user: str, *items: str) -> list[Event]:
    return [Event(user_id=user, item_id=item) for item in items]


def beside(settings: Settings) -> "redis.Redis[bytes]":
    """A client of the same Redis that knows nothing of the store."""
    if settings.history:
        return redis.Redis.from_url(settings.history.get_secret_value(), retry=None)
    assert settings.history_folder is not None
    return redis.Redis(unix_socket_path=str(settings.history_folder / "redis.sock"), retry=None)


def failures(store: HistoryStore) -> float:
    counter = store._metrics.history_failures.collect()
    return sum(s.value for m in counter for s in m.samples if s.name.endswith("_total"))


# --- the contract, whichever Redis ---


async def test_an_unknown_user_has_no_history(settings: MakeSettings, url: str | None) -> None:
    async with started(settings(history=url)) as store:
        assert store.up
        assert await store.read("nobody") == []


async def test_histories_are_newest_last_and_apart(settings: MakeSettings, url: str | None) -> None:
    async with started(settings(history=url)) as store:
        await store.append([*events("anna", "a", "b"), *events("bert", "x"), *events("anna", "c")])
        await store.append(events("anna", "a"))

        assert await store.read("anna") == ["a", "b", "c", "a"]
        assert await store.read("bert") == ["x"]


async def test_a_history_keeps_its_newest_items(settings: MakeSettings, url: str | None) -> None:
    async with started(settings(history=url, history_items=3)) as store:
        await store.append(events("anna", "a", "b"))
        await store.append(events("anna", "c", "d"))

        assert await store.read("anna") == ["b", "c", "d"]


async def test_ids_may_be_any_text(settings: MakeSettings, url: str | None) -> None:
    user, items = "käthe:*\n{}", ["", "雪", "\x00", "a b\r\n", "x" * 512]
    async with started(settings(history=url)) as store:
        await store.append([Event.model_construct(user_id=user, item_id=item) for item in items])

        assert await store.read(user) == items


async def test_every_event_goes_to_the_stream(settings: MakeSettings, url: str | None) -> None:
    chosen = settings(history=url)
    async with started(chosen) as store:
        full = Event(user_id="u", item_id="i", timestamp=12.5, event="view", event_id="e1")
        await store.append([full, *events("v", "j")])
        with beside(chosen) as client:
            [(_, first), (_, second)] = client.xrange(EVENTS)

    assert first == {
        b"user_id": b"u",
        b"item_id": b"i",
        b"timestamp": b"12.5",
        b"event": b"view",
        b"event_id": b"e1",
    }
    assert set(second) == {b"user_id", b"item_id", b"timestamp"}
    assert float(second[b"timestamp"]) > 1.7e9


async def test_the_stream_is_capped(settings: MakeSettings, url: str | None) -> None:
    chosen = settings(history=url, event_stream_length=100)
    async with started(chosen) as store:
        for _ in range(5):
            await store.append(events("u", *("i" for _ in range(200))))
        with beside(chosen) as client:
            assert 100 <= client.xlen(EVENTS) < 400


async def test_what_redis_refuses_does_not_cut_off_the_others(
    settings: MakeSettings, url: str | None
) -> None:
    chosen = settings(history=url, history_failures=1)
    async with started(chosen) as store:
        await store.append(events("anna", "a"))
        with beside(chosen) as client:
            client.set(HISTORY + "bad", "not a list")
            client.rpush(HISTORY + "odd", b"\xff\xfe")
        for _ in range(3):
            with pytest.raises(HistoryUnavailableError):
                await store.read("bad")

        assert await store.read("anna") == ["a"]
        assert await store.read("odd") == ["\ufffd\ufffd"]


async def read_and_cancel(store: HistoryStore, users: int, calls: int, draw: random.Random) -> int:
    """Reads of which most are given up at some point; the number that were answered."""

    async def one() -> int:
        user = f"user-{draw.randrange(users)}"
        reading = asyncio.ensure_future(store.read(user))
        for _ in range(draw.choice((0, 1, 2, 3, 5, 8, 1000))):
            if reading.done():
                break
            await asyncio.sleep(0)
        reading.cancel()
        try:
            items = await reading
        except (asyncio.CancelledError, HistoryUnavailableError):
            return 0
        assert items == [user] * 3, "another user's history"
        return 1

    async def several() -> int:
        return sum([await one() for _ in range(calls // 32)])

    return sum(await asyncio.gather(*(several() for _ in range(32))))


@pytest.mark.parametrize("calls", [10_000, pytest.param(100_000, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("budget_ms", [1, 5000], ids=lambda ms: f"{ms} ms")
async def test_a_call_given_up_never_answers_the_next(
    settings: MakeSettings, url: str | None, calls: int, budget_ms: int
) -> None:
    chosen = settings(history=url, history_failures=10**9)
    async with started(chosen) as store:
        for user in range(50):
            await store.append(events(f"user-{user}", *[f"user-{user}"] * 3))
        store._budget_s = budget_ms / 1000
        answered = await read_and_cancel(store, 50, calls, random.Random(0))
        store._budget_s = 5

        assert await store.read("user-7") == ["user-7"] * 3
    assert budget_ms == 1 or 0 < answered < calls


async def test_time_in_which_we_were_held_up_is_not_held_against_redis(
    settings: MakeSettings, url: str | None
) -> None:
    async with started(settings(history=url, history_failures=1)) as store:
        await store.append(events("anna", "a"))
        store._budget_s = 0.02
        for _ in range(5):
            reading = asyncio.ensure_future(store.read("anna"))
            for _ in range(5):
                await asyncio.sleep(0)
            time.sleep(0.05)  # as the loading of a release may, with the interpreter's lock
            assert await reading == ["a"]


async def test_reads_at_one_time_go_to_redis_together(
    settings: MakeSettings, url: str | None
) -> None:
    chosen = settings(history=url)
    async with started(chosen) as store:
        for user in range(100):
            await store.append(events(f"user-{user}", f"item-{user}"))
        with beside(chosen) as client:
            before = client.info()["total_reads_processed"]
            histories = await asyncio.gather(*(store.read(f"user-{i}") for i in range(100)))
            after = client.info()["total_reads_processed"]

    assert histories == [[f"item-{user}"] for user in range(100)]
    assert after - before < 10


# --- what becomes of Redis ---


async def test_redis_down_at_the_start_is_found_when_it_comes(
    settings: MakeSettings, tcp: Tcp
) -> None:
    async with started(settings(history=tcp.url, history_pause_s=0.01)) as store:
        assert not store.up
        for _ in range(20):
            with pytest.raises(HistoryUnavailableError):
                await store.read("anna")
        tcp.start()
        assert await until_read(store, "anna") == []
        assert store.up


async def until_read(store: HistoryStore, user: str) -> list[str]:
    """What is read as soon as anything can be."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await store.read(user)
            except HistoryUnavailableError:
                await asyncio.sleep(0.01)


async def test_redis_may_go_away_and_come_back(settings: MakeSettings, tcp: Tcp) -> None:
    tcp.start()
    async with started(settings(history=tcp.url, history_pause_s=0.01)) as store:
        await store.append(events("anna", "a"))
        tcp.stop()
        with pytest.raises(HistoryUnavailableError):
            await store.read("anna")
        with pytest.raises(HistoryUnavailableError):
            await store.append(events("anna", "b"))
        assert not store.up
        tcp.start()

        assert await until_read(store, "anna") == []
        await store.append(events("anna", "c"))
        assert await store.read("anna") == ["c"]


async def test_a_redis_that_hangs_is_soon_left_alone(settings: MakeSettings, tcp: Tcp) -> None:
    tcp.start()
    chosen = settings(
        history=tcp.url,
        history_budget_ms=20,
        history_failures=3,
        history_pause_s=3600,
    )
    async with started(chosen) as store:
        tcp.send(signal.SIGSTOP)
        for _ in range(10):
            with pytest.raises(HistoryUnavailableError):
                await store.read("anna")
        tcp.send(signal.SIGCONT)

        assert failures(store) == 3, "after three in a row nothing more was sent"


async def test_a_redis_of_our_own_is_started_again(settings: MakeSettings) -> None:
    chosen = settings(history_pause_s=0.01)
    async with started(chosen) as store:
        await store.append(events("anna", "a"))
        with beside(chosen) as client:
            os.kill(client.info()["process_id"], signal.SIGKILL)

        assert await until_read(store, "anna") == ["a"]


async def test_a_redis_of_our_own_keeps_its_data_and_ends_with_us(settings: MakeSettings) -> None:
    chosen = settings()
    async with started(chosen) as store:
        await store.append(events("anna", "a"))
    with beside(chosen) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    async with started(chosen) as store:
        assert await store.read("anna") == ["a"]


async def test_services_share_the_redis_of_one_folder(settings: MakeSettings) -> None:
    chosen = settings(history_pause_s=0.01)
    async with started(chosen) as second:
        async with started(chosen) as third:
            await second.append(events("anna", "a"))
            assert await third.read("anna") == ["a"]
        assert await second.read("anna") == ["a"], "it was not the third's to stop"

    async with started(chosen) as first:
        store = HistoryStore(server_of(chosen), chosen, Metrics())
        await store.start()
        await first.close()
        assert await until_read(store, "anna") == ["a"], "started again by who still needs it"
        await store.close()


def test_a_folder_that_cannot_hold_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedRedisError, match="at most 107; choose a shorter history folder"):
        EmbeddedRedis(tmp_path / ("x" * 200))


async def test_a_folder_that_cannot_be_used_leaves_us_without_histories(
    settings: MakeSettings, short_path: Path
) -> None:
    (short_path / "file").write_text("")
    async with started(settings(history_folder=short_path / "file")) as store:
        assert not store.up
        with pytest.raises(HistoryUnavailableError):
            await store.read("anna")


def test_the_settings_say_which_redis(settings: MakeSettings, root: Path) -> None:
    assert isinstance(server_of(settings(history="rediss://somewhere:1")), RemoteServer)
    assert isinstance(server_of(settings()), OwnServer)
    own = server_of(Settings(releases=Path("root")))
    assert isinstance(own, OwnServer)
    assert own.pool().connection_kwargs["path"] == "root/history/redis.sock"

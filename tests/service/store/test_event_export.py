"""The log has every event once, of every kind of Redis, whatever happens to it."""

import asyncio
import fcntl
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pyarrow.parquet as pq
import pytest

from service.__main__ import main
from service.settings import Settings
from service.store import event_export as export
from service.store.details import DetailsChange
from service.store.details_export import FILE as DETAILS
from service.store.embedded_redis import EmbeddedRedis
from service.store.event_export import ExportBusyError, Exported, ExportError, export_events
from service.store.event_log import EventLog
from service.store.events import Event
from service.store.histories import HistoryStore
from service.store.item_details import ItemDetails
from service.store.keys import PARTITIONS, Keys
from service.store.redis_client import ResilientRedis, deployment_of
from service.telemetry.metrics import Metrics
from tests.evidence.redis_servers import ClusterServers, RedisServer, SentinelServers, running
from tests.service.command_line import invoke
from training.config import FitConfig
from training.data.event_window import read_window

MakeSettings = Callable[..., Settings]
DAY_S = 86_400.0
OTHER_CATEGORIES = DetailsChange.of({"categories": ["x", "y"]}, None)
FIRST = 1_767_225_600.0  # 2026-01-01
STREAMS, UNEXPORTED = Keys("re4").streams, Keys("re4").unexported


@pytest.fixture
def redis(short_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(short_path)
    with running(server):
        yield server


@pytest.fixture(params=["embedded", "single", "sentinels", "cluster"])
def url(request: pytest.FixtureRequest, short_path: Path) -> Iterator[str | None]:
    if request.param == "embedded":
        yield None
    elif request.param == "single":
        yield request.getfixturevalue("redis").url
    else:
        servers = {"sentinels": SentinelServers, "cluster": ClusterServers}[request.param](
            short_path
        )
        with servers.running():
            yield servers.url


def send(settings: Settings, *events: Event, forget: str | None = None) -> None:
    async def append() -> None:
        metrics = Metrics()
        redis = ResilientRedis(deployment_of(settings), settings, metrics)
        await redis.start()
        store = HistoryStore(redis, settings, metrics)
        await store.append(events)
        if forget is not None:
            await store.forget(forget)
        await redis.close()

    asyncio.run(append())


def say(settings: Settings, *changes: tuple[str, DetailsChange]) -> None:
    async def change() -> None:
        redis = ResilientRedis(deployment_of(settings), settings, Metrics())
        await redis.start()
        await ItemDetails(redis).change(changes)
        await redis.close()

    asyncio.run(change())


def visit(user: str, item: str, day: int = 0, **fields: Any) -> Event:
    return Event(user_id=user, item_id=item, timestamp=FIRST + day * DAY_S, **fields)


def rows(folder: Path) -> list[dict[str, Any]]:
    """In the order in which the trainer reads them."""
    files = sorted(folder.glob("date=*/*.parquet"))
    return [{**row, "date": path.parent.name} for path in files for row in read(path)]


def read(path: Path) -> list[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        found: list[dict[str, Any]] = file.read().to_pylist()
    return found


def items(folder: Path) -> list[str | None]:
    return [row["item_id"] for row in rows(folder)]


# --- the round trip ---


def test_the_impression_of_an_event_is_logged(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen, folder = settings(redis_url=redis.url), tmp_path / "log"
    send(chosen, visit("anna", "a", impression_id="shown-1"), visit("anna", "b"))
    export_events(chosen, folder)
    assert [row["impression_id"] for row in rows(folder)] == ["shown-1", None]
    [file] = folder.glob("date=*/*.parquet")
    entries = [row["entry"].encode() for row in rows(folder)]
    pq.write_table(pq.ParquetFile(file).read().drop_columns("impression_id"), file)
    partition = int(file.name[:2])
    assert EventLog(folder).contained(partition, entries) == {*entries}, "an earlier version's"


def test_details_of_items_are_beside_the_events(
    settings: MakeSettings, url: str | None, tmp_path: Path
) -> None:
    chosen, folder = settings(redis_url=url), tmp_path / "log"
    said = {"price": 9.5, "stock": True, "locale": ["de", "at"]}
    say(chosen, ("a/ß", DetailsChange.of({"title": "A"}, said)), ("b", OTHER_CATEGORIES))
    assert export_events(chosen, folder) == Exported(items=2)
    lines = (folder / DETAILS).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"item_id": "a/ß", "title": "A", "categories": None, "attributes": said},
        {"item_id": "b", "title": None, "categories": ["x", "y"], "attributes": {}},
    ]
    say(chosen, ("b", DetailsChange.of({"categories": None}, None)))
    assert export_events(chosen, folder) == Exported(items=1)
    assert len((folder / DETAILS).read_text().splitlines()) == 1


def test_every_event_is_in_the_log_once(
    settings: MakeSettings, url: str | None, tmp_path: Path
) -> None:
    chosen, folder = settings(redis_url=url), tmp_path / "log"
    full = visit("anna", "a", 1, event="view", event_id="1")
    send(chosen, full, full, visit("anna", "b", 0), visit("käthe\n", "雪", 1), forget="anna")
    assert export_events(chosen, folder) == Exported(events=4, files=4)
    assert export_events(chosen, folder) == Exported()
    send(chosen, visit("bert", "c", 2))
    assert export_events(chosen, folder) == Exported(events=1, files=1)

    found = {(row["date"], row["user_id"], row["item_id"], row["event"]) for row in rows(folder)}
    tombstone = next(row for row in rows(folder) if row["event"] == "forget")
    assert tombstone["timestamp"] > FIRST
    assert found == {
        ("date=2026-01-02", "anna", "a", "view"),
        ("date=2026-01-01", "anna", "b", None),
        ("date=2026-01-02", "käthe\n", "雪", None),
        ("date=2026-01-03", "bert", "c", None),
        (tombstone["date"], "anna", None, "forget"),
    }
    assert {row["event_id"] for row in rows(folder)} == {"1", None}


def test_the_trainer_reads_the_log(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen = settings(redis_url=redis.url)
    send(chosen, visit("anna", "a"), visit("bert", "b", 1, event_id="1"), forget="anna")
    export_events(chosen, tmp_path / "log")
    window = read_window(tmp_path / "log", None, FitConfig(), (), None, 4e9)
    assert window.rows.to_pylist() == [
        {"user_id": "bert", "item_id": "b", "timestamp": FIRST + DAY_S}
    ]
    assert window.counts["forgotten"] == 1


def test_a_history_and_the_trainer_have_late_events_in_the_same_order(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen = settings(redis_url=redis.url)
    days = (3, 1, 2, 1, 0, 5, 4, 2)
    send(chosen, *(visit("anna", f"{number}", day) for number, day in enumerate(days)))
    send(chosen, visit("anna", "last", 1))
    history = redis.execute("LRANGE", f"re4:{{{crc32(b'anna') % PARTITIONS}}}:history:anna", 0, -1)
    export_events(chosen, tmp_path / "log")
    window = read_window(tmp_path / "log", None, FitConfig(), (), None, 4e9)
    trained_on = window.rows["item_id"].to_pylist()
    assert [item.decode() for item in history] == trained_on
    assert trained_on == ["4", "1", "3", "last", "2", "7", "0", "6", "5"]


def test_files_of_many_batches_are_in_the_order_of_the_stream(
    settings: MakeSettings,
    redis: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "_BATCH", 7)
    chosen = settings(redis_url=redis.url)
    send(chosen, *(visit("anna", f"{number}") for number in range(100)))
    assert export_events(chosen, tmp_path / "log") == Exported(events=100, files=15)
    assert items(tmp_path / "log") == [f"{number}" for number in range(100)]


def test_a_timestamp_after_the_last_date_is_filed_under_the_last_date(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen = settings(redis_url=redis.url)
    send(chosen, visit("anna", "a"))
    stream = stream_of(redis)  # to which an earlier version may have added this:
    redis.execute("XADD", stream, "*", "user_id", "anna", "item_id", "b", "timestamp", "1e300")
    redis.execute("INCR", unexported_of(stream))
    export_events(chosen, tmp_path / "log")
    _, row = rows(tmp_path / "log")
    assert (row["date"], row["timestamp"]) == ("date=9999-12-31", 1e300)


# --- the command ---


def test_the_last_line_of_the_command_is_its_summary(
    settings: MakeSettings, redis: RedisServer
) -> None:
    chosen = settings(redis_url=redis.url)
    send(chosen, visit("anna", "a"))
    arguments = ["export-events", "--releases", str(chosen.releases), "--redis-url", redis.url]
    exit_code, output = invoke(main, *arguments)
    assert exit_code == 0, output
    summary = json.loads(output.splitlines()[-1])
    assert summary == {"events": 1, "files": 1, "duplicates": 0, "lost": 0}
    assert items(chosen.releases / "events") == ["a"]


def test_the_command_needs_a_redis(tmp_path: Path) -> None:
    exit_code, output = invoke(main, "export-events", "--to", str(tmp_path / "log"))
    assert exit_code == 2
    assert "--releases" in output


def test_if_redis_is_down_the_error_is_one_sentence(
    settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_RETRIES", 0)
    settings_without_redis = settings(redis_url="unix:///nowhere.sock")
    with pytest.raises(ExportError, match="Redis does not answer"):
        export_events(settings_without_redis, tmp_path / "log")


def test_a_second_export_at_the_same_time_is_refused(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    with (tmp_path / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ExportBusyError, match="an export is at work; wait until it has ended"):
            export_events(settings(redis_url=redis.url), tmp_path)
    assert export_events(settings(redis_url=redis.url), tmp_path) == Exported()


def test_an_export_does_not_stop_the_embedded_redis_of_a_running_service(
    settings: MakeSettings, tmp_path: Path
) -> None:
    chosen = settings()
    assert chosen.embedded_redis_folder is not None
    embedded = EmbeddedRedis(chosen.embedded_redis_folder)
    embedded.start()
    try:
        send(chosen, visit("anna", "a"))
        assert export_events(chosen, tmp_path / "log").events == 1
        assert embedded._process is not None
        assert embedded._process.poll() is None
        assert embedded.socket.exists()
    finally:
        embedded.stop()


# --- lost, repeated and invalid entries ---


def test_entries_dropped_before_they_were_read_are_counted_and_logged(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = settings(redis_url=redis.url, event_stream_max_length=100 * PARTITIONS)
    folder = tmp_path / "log"
    send(chosen, *(visit("anna", f"{number}") for number in range(1000)))
    kept = redis.execute("XLEN", stream_of(redis))
    assert 100 <= kept < 300
    assert export_events(chosen, folder) == Exported(events=kept, files=1, lost=1000 - kept)
    [error] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert (error.message[:11], vars(error)["events"]) == ("EVENTS LOST", 1000 - kept)
    assert items(folder) == [f"{number}" for number in range(1000 - kept, 1000)]
    send(chosen, visit("anna", "later"))
    assert export_events(chosen, folder) == Exported(events=1, files=1), "reported once"


def test_exported_entries_may_be_dropped_while_they_are_pending(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, folder = settings(redis_url=redis.url), tmp_path / "log"
    send(chosen, *(visit("anna", f"{number}") for number in range(10)))
    with monkeypatch.context() as patch:
        patch.setattr(export, "_DONE", "return redis.error_reply('cut off')")
        with pytest.raises(ExportError, match="cut off"):
            export_events(chosen, folder)
    redis.execute("XTRIM", stream_of(redis), "MAXLEN", 4)
    assert export_events(chosen, folder) == Exported(duplicates=4)
    assert len(items(folder)) == 10


def test_pending_entries_of_another_consumer_are_exported(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen = settings(redis_url=redis.url)
    send(chosen, *(visit("anna", f"{number}") for number in range(10)))
    stream = stream_of(redis)
    redis.execute("XGROUP", "CREATE", stream, export.GROUP, 0)
    redis.execute("XREADGROUP", "GROUP", export.GROUP, "dead", "COUNT", 6, "STREAMS", stream, ">")
    assert export_events(chosen, tmp_path / "log").events == 10
    assert items(tmp_path / "log") == [f"{number}" for number in range(10)]
    assert redis.execute("XPENDING", stream, export.GROUP)["pending"] == 0


def test_entries_whose_reading_was_not_replicated_are_not_lost(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover between reading and acknowledging."""
    chosen, folder = settings(redis_url=redis.url), tmp_path / "log"
    send(chosen, *(visit("anna", f"{number}") for number in range(10)))
    stream = stream_of(redis)
    redis.execute("XGROUP", "CREATE", stream, export.GROUP, 0)
    before = redis.execute("DUMP", stream)
    add = EventLog.add

    def fail_over(log: Any, partition: int, rows: Any) -> None:
        add(log, partition, rows)
        redis.execute("RESTORE", stream, 0, before, "REPLACE")

    monkeypatch.setattr(EventLog, "add", fail_over)
    assert export_events(chosen, folder) == Exported(events=10, files=1)
    assert export_events(chosen, folder) == Exported()


def test_an_unreadable_file_does_not_block_other_partitions(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen, folder = settings(redis_url=redis.url), tmp_path / "log"
    users = [f"user-{number}" for number in range(20)]
    send(chosen, *(visit(user, "a") for user in users))
    export_events(chosen, folder)
    [damaged, *_] = folder.glob("date=*/*.parquet")
    damaged.write_bytes(b"")
    send(chosen, *(visit(user, "b") for user in users))
    with pytest.raises(ExportError, match=f"{damaged.name}: cannot be read"):
        export_events(chosen, folder)
    damaged.unlink()
    partition = int(damaged.name[:2])
    unexported = [user for user in users if crc32(user.encode()) % PARTITIONS == partition]
    assert export_events(chosen, folder).events == len(unexported) > 0


def test_the_losses_of_an_export_that_fails_are_in_its_last_line(
    settings: MakeSettings, redis: RedisServer
) -> None:
    chosen = settings(redis_url=redis.url, event_stream_max_length=100 * PARTITIONS)
    folder = chosen.releases / "events"
    users = [user for user in "bcdefgh" if crc32(user.encode()) != crc32(b"anna")]
    send(chosen, *(visit(user, "a") for user in users))
    export_events(chosen, folder)
    for damaged in folder.glob("date=*/*.parquet"):
        damaged.write_bytes(b"")
    send(chosen, *(visit("anna", f"{number}") for number in range(1000)))
    kept = redis.execute("XLEN", STREAMS[crc32(b"anna") % PARTITIONS])
    send(chosen, *(visit(user, "b") for user in users))
    arguments = ["export-events", "--releases", str(chosen.releases), "--redis-url", redis.url]
    exit_code, output = invoke(main, *arguments)
    assert exit_code == 1
    summary = next(line for line in output.splitlines() if line.startswith('{"events"'))
    assert json.loads(summary)["lost"] == 1000 - kept > 0


def test_a_redis_restored_from_a_backup_exports_nothing_twice(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen, folder = settings(redis_url=redis.url), tmp_path / "log"
    send(chosen, *(visit("anna", f"{number}", number % 3) for number in range(10)))
    before = {key: redis.execute("DUMP", key) for key in redis.execute("KEYS", "*")}
    assert export_events(chosen, folder).events == 10
    for key, dump in before.items():
        redis.execute("RESTORE", key, 0, dump, "REPLACE")
    assert export_events(chosen, folder) == Exported(duplicates=10)
    assert len(items(folder)) == 10


def test_another_entry_with_the_same_id_is_kept(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen, folder = settings(redis_url=redis.url), tmp_path / "log"
    send(chosen, visit("anna", "a"))
    stream = stream_of(redis)
    [(entry, _)] = redis.execute("XRANGE", stream, "-", "+")
    assert export_events(chosen, folder).events == 1
    redis.execute("DEL", stream)
    redis.execute("XADD", stream, entry, "user_id", "anna", "item_id", "b", "timestamp", FIRST)
    redis.execute("INCR", unexported_of(stream))
    assert export_events(chosen, folder) == Exported(events=1, files=1)
    assert items(folder) == ["a", "b"]


def test_the_log_knows_an_event_id_that_expired_in_redis(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen, folder = settings(redis_url=redis.url), tmp_path / "log"
    for users, expected in (
        (["anna"], Exported(events=1, files=1)),
        (["anna"], Exported(duplicates=1)),
        (
            ["anna", "bert"],
            Exported(events=1, files=1, duplicates=1),
        ),  # other users have other ids
    ):
        send(chosen, *(visit(user, "a", event_id="1") for user in users))
        assert export_events(chosen, folder) == expected
        for key in redis.execute("KEYS", "*:seen:*"):
            redis.execute("DEL", key)


def test_an_entry_that_is_not_an_event_blocks_nothing(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen = settings(redis_url=redis.url)
    send(chosen, visit("anna", "a"))
    stream = stream_of(redis)
    for fields in (["x", "y"], ["user_id", "u", "item_id", "i", "timestamp", "nan"]):
        redis.execute("XADD", stream, "*", *fields)
        redis.execute("INCR", unexported_of(stream))
    assert export_events(chosen, tmp_path / "log") == Exported(events=1, files=1, lost=2)
    assert redis.execute("XLEN", stream) == 0


def test_partial_files_of_a_killed_export_are_removed(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    partial = tmp_path / "date=2026-01-01" / ".00_1-1_2-2.parquet"
    partial.parent.mkdir()
    partial.write_bytes(b"PAR1")
    other = partial.with_name("part-0.parquet")
    other.write_bytes(b"somebody else's")
    export_events(settings(redis_url=redis.url), tmp_path)
    assert list(partial.parent.iterdir()) == [other]


def test_the_export_loads_no_retrieval_library() -> None:
    program = (
        "import service.store.event_export, sys; print({'torch', 'faiss'} & sys.modules.keys())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


def stream_of(redis: RedisServer) -> str:
    [stream] = [stream for stream in STREAMS if redis.execute("EXISTS", stream)]
    return stream


def unexported_of(stream: str) -> str:
    return UNEXPORTED[STREAMS.index(stream)]

"""The log has every event once, whichever Redis it came from and whatever became of that."""

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
from service.http.schemas.histories import Event
from service.settings import Settings
from service.store import event_export as export
from service.store.embedded_redis import EmbeddedRedis
from service.store.event_export import ExportBusyError, Exported, ExportError, export_events
from service.store.histories import PARTS, STREAMS, WAITING, HistoryStore
from service.store.redis_client import ResilientRedis
from service.store.redis_url import address_of
from service.telemetry.metrics import Metrics
from tests.evidence.redises import Clustered, RedisServer, Watched, running
from tests.service.command_line import invoke
from training.config import FitConfig
from training.data.event_window import read_window

MakeSettings = Callable[..., Settings]
DAY_S = 86_400.0
FIRST = 1_767_225_600.0  # 2026-01-01


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
        several = {"sentinels": Watched, "cluster": Clustered}[request.param](short_path)
        with several.running():
            yield several.url


def send(settings: Settings, *events: Event, forget: str | None = None) -> None:
    async def sent() -> None:
        metrics = Metrics()
        link = ResilientRedis(address_of(settings), settings, metrics)
        await link.start()
        store = HistoryStore(link, settings, metrics)
        await store.append(events)
        if forget is not None:
            await store.forget(forget)
        await link.close()

    asyncio.run(sent())


def visit(user: str, item: str, day: int = 0, **fields: Any) -> Event:
    return Event(user_id=user, item_id=item, timestamp=FIRST + day * DAY_S, **fields)


def rows(folder: Path) -> list[dict[str, Any]]:
    """In the order in which the night reads them."""
    files = sorted(folder.glob("date=*/*.parquet"))
    return [{**row, "date": path.parent.name} for path in files for row in read(path)]


def read(path: Path) -> list[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        found: list[dict[str, Any]] = file.read().to_pylist()
    return found


def items(folder: Path) -> list[str | None]:
    return [row["item_id"] for row in rows(folder)]


# --- the round trip ---


def test_what_was_heard_is_in_the_log_once(
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


def test_the_night_reads_it(settings: MakeSettings, redis: RedisServer, tmp_path: Path) -> None:
    chosen = settings(redis_url=redis.url)
    send(chosen, visit("anna", "a"), visit("bert", "b", 1, event_id="1"), forget="anna")
    export_events(chosen, tmp_path / "log")
    window = read_window(tmp_path / "log", None, FitConfig(), (), None, 4e9)
    assert window.rows.to_pylist() == [
        {"user_id": "bert", "item_id": "b", "timestamp": FIRST + DAY_S}
    ]
    assert window.counts["forgotten"] == 1


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


def test_a_time_beyond_all_calendars_is_filed_under_the_last_day(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen = settings(redis_url=redis.url)
    unchecked = {"user_id": "anna", "item_id": "a", "event": None, "event_id": None}
    send(chosen, Event.model_construct(**unchecked, timestamp=1e300))
    export_events(chosen, tmp_path / "log")
    [row] = rows(tmp_path / "log")
    assert (row["date"], row["timestamp"]) == ("date=9999-12-31", 1e300)


# --- the command ---


def test_the_command_says_last_what_it_did(settings: MakeSettings, redis: RedisServer) -> None:
    chosen = settings(redis_url=redis.url)
    send(chosen, visit("anna", "a"))
    given = ["export-events", "--releases", str(chosen.releases), "--redis-url", redis.url]
    code, output = invoke(main, *given)
    assert code == 0, output
    said = json.loads(output.splitlines()[-1])
    assert said == {"events": 1, "files": 1, "duplicates": 0, "lost": 0}
    assert items(chosen.releases / "events") == ["a"]


def test_without_a_redis_the_command_says_so(tmp_path: Path) -> None:
    code, output = invoke(main, "export-events", "--to", str(tmp_path / "log"))
    assert code == 2
    assert "--releases" in output


def test_a_redis_that_is_away_is_one_sentence(
    settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_ATTEMPTS", 0)
    away = settings(redis_url="unix:///nowhere.sock")
    with pytest.raises(ExportError, match="Redis does not answer"):
        export_events(away, tmp_path / "log")


def test_of_two_exports_the_second_refuses(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    with (tmp_path / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ExportBusyError, match="an export is at work; wait until it has ended"):
            export_events(settings(redis_url=redis.url), tmp_path)
    assert export_events(settings(redis_url=redis.url), tmp_path) == Exported()


def test_the_redis_of_a_service_that_runs_goes_on(settings: MakeSettings, tmp_path: Path) -> None:
    chosen = settings()
    assert chosen.embedded_redis_folder is not None
    own = EmbeddedRedis(chosen.embedded_redis_folder)
    own.start()
    try:
        send(chosen, visit("anna", "a"))
        assert export_events(chosen, tmp_path / "log").events == 1
        assert own._process is not None
        assert own._process.poll() is None
        assert own.socket.exists()
    finally:
        own.stop()


# --- what is not there any more, or there again ---


def test_what_was_dropped_unread_is_counted_and_shouted(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = settings(redis_url=redis.url, event_stream_max_length=100 * PARTS)
    folder = tmp_path / "log"
    send(chosen, *(visit("anna", f"{number}") for number in range(1000)))
    kept = redis.ask("XLEN", stream_of(redis))
    assert 100 <= kept < 300
    assert export_events(chosen, folder) == Exported(events=kept, files=1, lost=1000 - kept)
    [said] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert (said.message[:11], vars(said)["events"]) == ("EVENTS LOST", 1000 - kept)
    assert items(folder) == [f"{number}" for number in range(1000 - kept, 1000)]
    send(chosen, visit("anna", "later"))
    assert export_events(chosen, folder) == Exported(events=1, files=1), "told once"


def test_what_was_exported_may_be_dropped_while_it_is_pending(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, folder = settings(redis_url=redis.url), tmp_path / "log"
    send(chosen, *(visit("anna", f"{number}") for number in range(10)))
    with monkeypatch.context() as patch:
        patch.setattr(export, "_DONE", "return redis.error_reply('cut off')")
        with pytest.raises(ExportError, match="cut off"):
            export_events(chosen, folder)
    redis.ask("XTRIM", stream_of(redis), "MAXLEN", 4)
    assert export_events(chosen, folder) == Exported(duplicates=4)
    assert len(items(folder)) == 10


def test_what_another_has_pending_is_taken_over(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen = settings(redis_url=redis.url)
    send(chosen, *(visit("anna", f"{number}") for number in range(10)))
    stream = stream_of(redis)
    redis.ask("XGROUP", "CREATE", stream, export.GROUP, 0)
    redis.ask("XREADGROUP", "GROUP", export.GROUP, "dead", "COUNT", 6, "STREAMS", stream, ">")
    assert export_events(chosen, tmp_path / "log").events == 10
    assert items(tmp_path / "log") == [f"{number}" for number in range(10)]
    assert redis.ask("XPENDING", stream, export.GROUP)["pending"] == 0


def test_what_a_server_that_took_over_does_not_know_to_be_read_is_not_lost(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover between reading and acknowledging."""
    chosen, folder = settings(redis_url=redis.url), tmp_path / "log"
    send(chosen, *(visit("anna", f"{number}") for number in range(10)))
    stream = stream_of(redis)
    redis.ask("XGROUP", "CREATE", stream, export.GROUP, 0)
    before = redis.ask("DUMP", stream)
    add = export._Log.add

    def fail_over(log: Any, part: int, rows: Any) -> None:
        add(log, part, rows)
        redis.ask("RESTORE", stream, 0, before, "REPLACE")

    monkeypatch.setattr(export._Log, "add", fail_over)
    assert export_events(chosen, folder) == Exported(events=10, files=1)
    assert export_events(chosen, folder) == Exported()


def test_a_file_that_cannot_be_read_keeps_no_other_part_waiting(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen, folder = settings(redis_url=redis.url), tmp_path / "log"
    users = [f"user-{number}" for number in range(20)]
    send(chosen, *(visit(user, "a") for user in users))
    export_events(chosen, folder)
    [spoilt, *_] = folder.glob("date=*/*.parquet")
    spoilt.write_bytes(b"")
    send(chosen, *(visit(user, "b") for user in users))
    with pytest.raises(ExportError, match=f"{spoilt.name}: cannot be read"):
        export_events(chosen, folder)
    spoilt.unlink()
    part = int(spoilt.name[:2])
    waiting = [user for user in users if crc32(user.encode()) % PARTS == part]
    assert export_events(chosen, folder).events == len(waiting) > 0


def test_a_redis_that_was_set_back_brings_nothing_twice(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen, folder = settings(redis_url=redis.url), tmp_path / "log"
    send(chosen, *(visit("anna", f"{number}", number % 3) for number in range(10)))
    before = {key: redis.ask("DUMP", key) for key in redis.ask("KEYS", "*")}
    assert export_events(chosen, folder).events == 10
    for key, dump in before.items():
        redis.ask("RESTORE", key, 0, dump, "REPLACE")
    assert export_events(chosen, folder) == Exported(duplicates=10)
    assert len(items(folder)) == 10


def test_an_entry_that_only_has_the_id_of_another_is_kept(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen, folder = settings(redis_url=redis.url), tmp_path / "log"
    send(chosen, visit("anna", "a"))
    stream = stream_of(redis)
    [(entry, _)] = redis.ask("XRANGE", stream, "-", "+")
    assert export_events(chosen, folder).events == 1
    redis.ask("DEL", stream)
    redis.ask("XADD", stream, entry, "user_id", "anna", "item_id", "b", "timestamp", FIRST)
    redis.ask("INCR", waiting_of(stream))
    assert export_events(chosen, folder) == Exported(events=1, files=1)
    assert items(folder) == ["a", "b"]


def test_an_event_id_that_redis_forgot_is_known_to_the_log(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen, folder = settings(redis_url=redis.url), tmp_path / "log"
    for users, expected in (
        (["anna"], Exported(events=1, files=1)),
        (["anna"], Exported(duplicates=1)),
        (["anna", "bert"], Exported(events=1, files=1, duplicates=1)),  # ids are apart
    ):
        send(chosen, *(visit(user, "a", event_id="1") for user in users))
        assert export_events(chosen, folder) == expected
        for key in redis.ask("KEYS", "*:seen:*"):
            redis.ask("DEL", key)


def test_what_is_no_event_holds_nothing_up(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    chosen = settings(redis_url=redis.url)
    send(chosen, visit("anna", "a"))
    stream = stream_of(redis)
    for fields in (["x", "y"], ["user_id", "u", "item_id", "i", "timestamp", "nan"]):
        redis.ask("XADD", stream, "*", *fields)
        redis.ask("INCR", waiting_of(stream))
    assert export_events(chosen, tmp_path / "log") == Exported(events=1, files=1, lost=2)
    assert redis.ask("XLEN", stream) == 0


def test_what_a_killed_export_left_aside_is_removed(
    settings: MakeSettings, redis: RedisServer, tmp_path: Path
) -> None:
    aside = tmp_path / "date=2026-01-01" / ".00_1-1_2-2.parquet"
    aside.parent.mkdir()
    aside.write_bytes(b"PAR1")
    other = aside.with_name("part-0.parquet")
    other.write_bytes(b"somebody else's")
    export_events(settings(redis_url=redis.url), tmp_path)
    assert list(aside.parent.iterdir()) == [other]


def test_it_does_not_wait_for_what_answers_requests_to_be_loaded() -> None:
    program = (
        "import service.store.event_export, sys; print({'torch', 'faiss'} & sys.modules.keys())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "set()"


def stream_of(redis: RedisServer) -> str:
    [stream] = [stream for stream in STREAMS if redis.ask("EXISTS", stream)]
    return stream


def waiting_of(stream: str) -> str:
    return WAITING[STREAMS.index(stream)]

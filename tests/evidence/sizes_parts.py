"""The parts of sizes.py that are weighed, each in a process of its own.

    python tests/evidence/sizes_parts.py log FOLDER SIZE
    python tests/evidence/sizes_parts.py fit FOLDER EXAMPLES
    python tests/evidence/sizes_parts.py load RELEASE TIMES
    python tests/evidence/sizes_parts.py redis FOLDER USERS

The last line is one JSON object.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

if TYPE_CHECKING:  # each part loads what it needs itself: its memory is weighed
    from redises import RedisServer

    from service.http.schemas.histories import Event
    from service.settings import Settings

LOG, ROOT = "log", "root"
_BASE = 10_000  # users; more are these again, with other items of the same lines
_FULL = 100  # items of a history
_AGAIN = 10  # a tenth of the users sends as many events again, with ids
_AT_ONCE = 1000


# --- a log ---


def write_log(folder: Path, size: int) -> dict[str, object]:
    """As many items as users, about ten interactions each."""
    from training.data.synthetic import write_synthetic

    write_synthetic(folder / "base", users=min(size, _BASE), items=size)
    taken = pq.read_table(folder / "base" / "interactions.parquet")
    items = pq.read_table(folder / "base" / "items.parquet")
    ids = items["item_id"].combine_chunks().dictionary_encode()
    row_of = {item_id: row for row, item_id in enumerate(ids.dictionary.to_pylist())}
    rows = np.array([row_of[item_id] for item_id in taken["item_id"].to_pylist()])
    titles = [title.partition(",")[0] for title in items["title"].to_pylist()]
    lines = np.unique(titles, return_inverse=True)[1]
    draw = np.random.default_rng(0)
    copies = [
        pa.table(
            {
                "user_id": pa.array([f"{copy}-{user}" for user in taken["user_id"].to_pylist()]),
                "item_id": ids.dictionary.take(pa.array(_other_items(lines, draw)[rows])),
                "timestamp": taken["timestamp"],
            }
        )
        for copy in range(max(size // _BASE, 1))
    ]
    log = pa.concat_tables(copies)
    (folder / LOG).mkdir()
    pq.write_table(log, folder / LOG / "interactions.parquet")
    items_path = folder / "base" / "items.parquet"
    items_path.rename(folder / "items.parquet")
    return {"interactions": log.num_rows}


def _other_items(lines: NDArray[np.int64], draw: np.random.Generator) -> NDArray[np.int64]:
    """For each row another of its line, each once."""
    there = np.argsort(lines, kind="stable")
    other = np.empty(len(lines), dtype=np.int64)
    other[there] = np.lexsort((draw.random(len(lines)), lines))
    return other


# --- a fit ---


def fit_some(folder: Path, examples: int) -> dict[str, object]:
    """An epoch over so many examples, with all of the log and the catalogue in memory.

    Says what a whole epoch would take beyond that, by the time that these took.
    """
    from training.config import FitConfig
    from training.fitting.fit import Prepared, prepare_log, write_draft
    from training.fitting.trainer import Progress, Trainer

    config = FitConfig(
        recency=True,
        epochs=1,
        min_user_interactions=1,
        min_item_interactions=1,
        batch_size=1024,
    )
    ready = prepare_log(folder / LOG / "interactions.parquet", folder / "items.parquet", config)
    train = ready.task.train
    whole = len(train.rows) - len(train)
    users = min(len(train), max(len(train) * examples // whole, 1))
    some = Prepared(
        ready.catalog, ready.log, replace(ready.task, train=train.take(np.arange(users)))
    )
    work = folder / "fit"
    work.mkdir()
    trainer = Trainer(config, some.catalog, some.task, work)
    marks: list[tuple[int, float]] = []

    def note(size: int, progress: Progress) -> None:
        marks.append((progress.examples, time.process_time()))

    fitted = trainer.run(note)
    (first, began), (last, ended) = marks[0], marks[-1]
    each_s = (ended - began) / (last - first)
    draft = write_draft(folder / ROOT / "drafts" / "sized", config, some, fitted)
    return {
        "draft": str(draft),
        "items": len(ready.catalog),
        "users": len(ready.log),
        "examples": whole,
        "trained_on": last,
        "cpu_s_left_out": (whole - last) * each_s,
    }


# --- a release ---


def load(folder: Path, times: int) -> dict[str, object]:
    """As the service does, when it has loaded one before."""
    from service.serving.release_loader import _open

    took = []
    for _ in range(1 + times):
        began = time.process_time()
        _open(folder, "cpu")
        took.append(time.process_time() - began)
    return {"load_s": float(np.median(took[1:]))}


# --- Redis ---


def redis(folder: Path, users: int) -> dict[str, object]:
    from redises import RedisServer, running

    server = RedisServer(folder)
    with running(server):
        return _filled(server, folder, users)


def _filled(server: "RedisServer", folder: Path, users: int) -> dict[str, object]:
    from service.settings import Settings
    from service.store.event_export import export_events

    settings = Settings(
        releases=folder,
        history=server.url,
        history_budget_ms=60_000,
        event_stream_length=2 * users * _FULL,
    )

    def used() -> int:
        with server.client() as client:
            return int(client.info("memory")["used_memory"])

    empty = used()
    began = time.monotonic()
    asyncio.run(_send(settings, users, with_ids=False))
    sending_s, full = time.monotonic() - began, used()
    began = time.monotonic()
    exported = export_events(settings, folder / "events")
    export_s, drained = time.monotonic() - began, used()
    assert exported.events == users * _FULL
    written = sum(path.stat().st_size for path in (folder / "events").glob("date=*/*.parquet"))
    again = users // _AGAIN
    asyncio.run(_send(settings, again, with_ids=True))
    export_events(settings, folder / "events")
    return {
        "users": users,
        "events": exported.events,
        "history_bytes_a_user": round((drained - empty) / users),
        "stream_bytes_an_event": round((full - drained) / exported.events),
        "id_bytes_an_event": round((used() - drained) / (again * _FULL)),
        "appended_per_s": round(exported.events / sending_s),
        "exported_per_s": round(exported.events / export_s),
        "parquet_bytes_an_event": round(written / exported.events, 1),
        "files": exported.files,
    }


async def _send(settings: "Settings", users: int, with_ids: bool) -> None:
    from service.store.histories import HistoryStore
    from service.store.redis_client import ResilientRedis
    from service.store.redis_url import address_of
    from service.telemetry.metrics import Metrics

    metrics = Metrics()
    link = ResilientRedis(address_of(settings), settings, metrics)
    await link.start()
    store = HistoryStore(link, settings, metrics)
    for events in _events(users, with_ids):
        await store.append(events)
    await link.close()


def _events(users: int, with_ids: bool) -> "Iterator[list[Event]]":
    """Full histories, a user's events one after the other; ids as clients make them."""
    from service.http.schemas.histories import Event

    draw, now = np.random.default_rng(users), time.time()
    some: list[Event] = []
    for user in range(users):
        for item in draw.integers(0, 100_000, _FULL).tolist():
            event_id = str(UUID(bytes=draw.bytes(16))) if with_ids else None
            at = now - float(draw.integers(3600))
            named = f"user-{user:05d}", f"item-{item:05d}"
            some.append(Event(user_id=named[0], item_id=named[1], timestamp=at, event_id=event_id))
        if len(some) >= _AT_ONCE:
            yield some
            some = []
    if some:
        yield some


PARTS = {"log": write_log, "fit": fit_some, "load": load, "redis": redis}

if __name__ == "__main__":
    part, folder, count = sys.argv[1:]
    print(json.dumps(PARTS[part](Path(folder), int(count))))

"""The parts of sizes.py whose memory and time are measured, each in a process of its own.

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

if TYPE_CHECKING:  # each part imports only what it needs: its memory is measured
    from redis_servers import RedisServer

    from service.settings import Settings
    from service.store.events import Event

LOG, ROOT = "log", "root"
_BASE_USERS = 10_000  # more users are copies of these, with other items of the same lines
_HISTORY_LENGTH = 100
_WITH_IDS = 10  # a tenth of the users sends as many events again, with ids
_BATCH = 1000


# --- a log ---


def write_log(folder: Path, size: int) -> dict[str, object]:
    """As many items as users, about ten interactions each."""
    from training.data.synthetic import write_synthetic

    write_synthetic(folder / "base", users=min(size, _BASE_USERS), items=size)
    base = pq.read_table(folder / "base" / "interactions.parquet")
    items = pq.read_table(folder / "base" / "items.parquet")
    ids = items["item_id"].combine_chunks().dictionary_encode()
    row_of = {item_id: row for row, item_id in enumerate(ids.dictionary.to_pylist())}
    rows = np.array([row_of[item_id] for item_id in base["item_id"].to_pylist()])
    titles = [title.partition(",")[0] for title in items["title"].to_pylist()]
    lines = np.unique(titles, return_inverse=True)[1]
    rng = np.random.default_rng(0)
    copies = [
        pa.table(
            {
                "user_id": pa.array([f"{copy}-{user}" for user in base["user_id"].to_pylist()]),
                "item_id": ids.dictionary.take(pa.array(_permute_in_lines(lines, rng)[rows])),
                "timestamp": base["timestamp"],
            }
        )
        for copy in range(max(size // _BASE_USERS, 1))
    ]
    log = pa.concat_tables(copies)
    (folder / LOG).mkdir()
    pq.write_table(log, folder / LOG / "interactions.parquet")
    items_path = folder / "base" / "items.parquet"
    items_path.rename(folder / "items.parquet")
    return {"interactions": log.num_rows}


def _permute_in_lines(lines: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A random permutation of the rows within each product line."""
    by_line = np.argsort(lines, kind="stable")
    permutation = np.empty(len(lines), dtype=np.int64)
    permutation[by_line] = np.lexsort((rng.random(len(lines)), lines))
    return permutation


# --- a fit ---


def fit_some(folder: Path, examples: int) -> dict[str, object]:
    """An epoch over part of the examples, with the whole log and catalogue in memory.

    Extrapolates the time of the other examples from the time of these.
    """
    from training.config import FitConfig
    from training.fitting.fit import PreparedData, prepare_log, write_draft
    from training.fitting.trainer import Trainer, TrainingState

    config = FitConfig(epochs=1, min_user_interactions=1, min_item_interactions=1, batch_size=1024)
    data = prepare_log(folder / LOG / "interactions.parquet", folder / "items.parquet", config)
    train = data.split.train
    total = len(train.rows) - len(train)
    users = min(len(train), max(len(train) * examples // total, 1))
    sample = PreparedData(
        data.catalog, data.log, replace(data.split, train=train.take(np.arange(users)))
    )
    work = folder / "fit"
    work.mkdir()
    trainer = Trainer(config, sample.catalog, sample.split, work)
    marks: list[tuple[int, float]] = []

    def record(size: int, state: TrainingState) -> None:
        marks.append((state.examples, time.process_time()))

    result = trainer.run(record)
    (first, started), (last, ended) = marks[0], marks[-1]
    example_s = (ended - started) / (last - first)
    draft = write_draft(folder / ROOT / "drafts" / "sized", config, sample, result)
    return {
        "draft": str(draft),
        "items": len(data.catalog),
        "users": len(data.log),
        "examples": total,
        "trained_on": last,
        "cpu_s_left_out": (total - last) * example_s,
    }


# --- a release ---


def load(folder: Path, times: int) -> dict[str, object]:
    """As the service does when it has loaded a release before."""
    from service.serving.release_loader import _open_and_warm_up

    seconds = []
    for _ in range(1 + times):
        started = time.process_time()
        _open_and_warm_up(folder, "cpu", "auto")
        seconds.append(time.process_time() - started)
    return {"load_s": float(np.median(seconds[1:]))}


# --- Redis ---


def redis(folder: Path, users: int) -> dict[str, object]:
    from redis_servers import RedisServer, running

    server = RedisServer(folder)
    with running(server):
        return _fill(server, folder, users)


def _fill(server: "RedisServer", folder: Path, users: int) -> dict[str, object]:
    from service.settings import Settings
    from service.store.event_export import export_events

    settings = Settings(
        releases=folder,
        redis_url=server.url,
        redis_timeout_ms=60_000,
        event_stream_max_length=2 * users * _HISTORY_LENGTH,
    )

    def used() -> int:
        with server.client() as client:
            return int(client.info("memory")["used_memory"])

    empty = used()
    started = time.monotonic()
    asyncio.run(_send(settings, users, with_ids=False))
    sending_s, full = time.monotonic() - started, used()
    started = time.monotonic()
    exported = export_events(settings, folder / "events")
    export_s, drained = time.monotonic() - started, used()
    assert exported.events == users * _HISTORY_LENGTH
    written = sum(path.stat().st_size for path in (folder / "events").glob("date=*/*.parquet"))
    users_with_ids = users // _WITH_IDS
    asyncio.run(_send(settings, users_with_ids, with_ids=True))
    export_events(settings, folder / "events")
    return {
        "users": users,
        "events": exported.events,
        "history_bytes_a_user": round((drained - empty) / users),
        "stream_bytes_an_event": round((full - drained) / exported.events),
        "id_bytes_an_event": round((used() - drained) / (users_with_ids * _HISTORY_LENGTH)),
        "appended_per_s": round(exported.events / sending_s),
        "exported_per_s": round(exported.events / export_s),
        "parquet_bytes_an_event": round(written / exported.events, 1),
        "files": exported.files,
    }


async def _send(settings: "Settings", users: int, with_ids: bool) -> None:
    from service.store.histories import HistoryStore
    from service.store.redis_client import ResilientRedis, deployment_of
    from service.telemetry.metrics import Metrics

    metrics = Metrics()
    redis = ResilientRedis(deployment_of(settings), settings, metrics)
    await redis.start()
    store = HistoryStore(redis, settings, metrics)
    for events in _events(users, with_ids):
        await store.append(events)
    await redis.close()


def _events(users: int, with_ids: bool) -> "Iterator[list[Event]]":
    """Full histories, grouped by user; event ids are UUIDs."""
    from service.store.events import Event

    rng, now = np.random.default_rng(users), time.time()
    batch: list[Event] = []
    for user in range(users):
        for item in rng.integers(0, 100_000, _HISTORY_LENGTH).tolist():
            event_id = str(UUID(bytes=rng.bytes(16))) if with_ids else None
            timestamp = now - float(rng.integers(3600))
            user_id, item_id = f"user-{user:05d}", f"item-{item:05d}"
            batch.append(
                Event(user_id=user_id, item_id=item_id, timestamp=timestamp, event_id=event_id)
            )
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


PARTS = {"log": write_log, "fit": fit_some, "load": load, "redis": redis}

if __name__ == "__main__":
    part, folder, count = sys.argv[1:]
    print(json.dumps(PARTS[part](Path(folder), int(count))))

"""Kills exports, and runs them again.

    python tests/evidence/export_kills.py [--each 20] [--random 200] [--seed 0]

Each export is killed at one of the points below, --each times per point, or at a random moment,
sometimes twice in a row; then one runs to its end. Then the log must have every event once, in
readable files, and no partial file. In one trial of ten, entries are dropped between the kill and
the last run, which must report exactly how many of them are lost. The last line is one JSON object;
the status is 1 if anything fails.

It forks a child for each trial instead of starting an interpreter.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from redis.asyncio import Redis
from redis_servers import RedisServer, running

from service.settings import Settings
from service.store import event_export as export
from service.store import event_log
from service.store.event_export import export_events
from service.store.events import Event
from service.store.histories import HistoryStore
from service.store.keys import Keys
from service.store.redis_client import ResilientRedis, deployment_of
from service.telemetry.metrics import Metrics

KILL_POINTS = (
    "before reading",
    "after reading",
    "after what is pending",
    "folder",
    "half written",
    "before fsync",
    "before rename",
    "before fsync of the folder",
    "before acknowledging",
    "after acknowledging",
    "before the losses",
)
STREAMS = Keys("re4").streams
BATCH = 8
USERS = ("anna", "bert", "carl", "dora")
DAYS = 3
DAY_S = 86_400
_LOG_EVERY = 50
_COMMANDS = {
    "XREADGROUP": ("before reading", "after reading"),
    export._PENDING: (None, "after what is pending"),
    export._DONE: ("before acknowledging", "after acknowledging"),
    export._LOST: ("before the losses", None),
}

Row = tuple[str, str | None, str | None]  # user, item, event id


class Trials:
    """A Redis, the log, and the events sent so far."""

    def __init__(self, server: RedisServer, scratch: Path, seed: int) -> None:
        self.server = server
        self.settings = Settings(releases=scratch, redis_url=server.url, redis_timeout_ms=20_000)
        self.folder = scratch / "events"
        self.draw = random.Random(seed)
        self.sent: list[Row] = []
        self.seconds = 0.0  # of the last export that was not killed
        self.number = 0
        self.dropped = self.lost = self.duplicates = 0

    def reset(self) -> None:
        self.server.execute("FLUSHALL")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.sent.clear()

    def send(self, count: int) -> None:
        asyncio.run(self._send(count))

    async def _send(self, count: int) -> None:
        metrics = Metrics()
        redis = ResilientRedis(deployment_of(self.settings), self.settings, metrics)
        await redis.start()
        store = HistoryStore(redis, self.settings, metrics)
        events = [self._event() for _ in range(count)]
        appended = await store.append([*events, events[0]])
        assert (appended.accepted, appended.duplicates) == (count, 1)
        self.sent += [(event.user_id, event.item_id, event.event_id) for event in events]
        await store.forget(USERS[0])
        self.sent.append((USERS[0], None, None))
        await redis.close()

    def _event(self) -> Event:
        self.number += 1
        at = time.time() + DAY_S * (1 + self.draw.randrange(DAYS))  # after the `forget`
        return Event(
            user_id=self.draw.choice(USERS),
            item_id=f"item-{self.number}",
            timestamp=at,
            event_id=f"event-{self.number}",
        )

    def fork_export(self, prepare: Callable[[], None] = lambda: None) -> int:
        """The process of an export, which calls `prepare` first."""
        child = os.fork()
        if child:
            return child
        try:
            export._BATCH, export._DELETE_BATCH = BATCH, BATCH // 3
            os.fsync = lambda descriptor: None  # a kill loses nothing written, and disks are slow
            prepare()
            output = asdict(export_events(self.settings, self.folder))
            (self.folder.parent / "output").write_text(json.dumps(output))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(99)

    def finish(self) -> dict[str, int]:
        """Export to the end, and check the log."""
        missing = self._missing()
        start = time.monotonic()
        assert os.waitstatus_to_exitcode(os.waitpid(self.fork_export(), 0)[1]) == 0, "see above"
        self.seconds = time.monotonic() - start
        output: dict[str, int] = json.loads((self.folder.parent / "output").read_text())
        assert output["lost"] == sum(missing.values()), (output, missing)
        rows = self._rows()
        self.lost += (Counter(self.sent) - Counter(rows) - missing).total()
        self.duplicates += (Counter(rows) - Counter(self.sent)).total()
        assert not list(self.folder.glob("date=*/.*")), "a partial file is left"
        with self.server.client() as client:
            assert not any(client.xlen(stream) for stream in STREAMS)
        self.dropped += sum(missing.values())
        self.sent = rows
        return output

    def drop(self) -> None:
        with self.server.client() as client:
            for stream in STREAMS:
                client.xtrim(stream, maxlen=3, approximate=False)

    def _missing(self) -> "Counter[Row]":
        """The events sent that are neither in the log nor in Redis."""
        waiting: list[tuple[str, Row]] = []
        with self.server.client() as client:
            for stream in STREAMS:
                for entry, fields in client.xrange(stream):
                    texts = {name.decode(): value.decode() for name, value in fields.items()}
                    row = (texts["user_id"], texts.get("item_id"), texts.get("event_id"))
                    waiting.append((entry.decode(), row))
        logged = self._entries()
        present = Counter(row for _, row in logged)
        present += Counter(row for entry, row in waiting if (entry, row) not in set(logged))
        return Counter(self.sent) - present

    def _rows(self) -> list[Row]:
        return [row for _, row in self._entries()]

    def _entries(self) -> list[tuple[str, Row]]:
        found = []
        for path in self.folder.glob("date=*/[!.]*.parquet"):
            with pq.ParquetFile(path) as file:
                rows = file.read(use_threads=False).to_pylist()
            found += [
                (row["entry"], (row["user_id"], row["item_id"], row["event_id"])) for row in rows
            ]
        return found


def kill_at(point: str, number: int) -> None:
    """From now on, the process dies when it comes to the point for that time."""
    left = number

    def reach(name: str | None) -> None:
        nonlocal left
        if name == point:  # and not for the kill itself, which is an event too
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        reach("before fsync of the folder" if is_folder else "before fsync")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        reach({"os.rename": "before rename", "os.mkdir": "folder"}.get(event))

    write_original, execute_original = pq.write_table, Redis.execute_command

    def write_table(table: Any, opened: Any, **options: Any) -> None:
        opened.write(b"PAR1, and no more")
        opened.flush()
        reach("half written")
        opened.seek(0)
        opened.truncate()
        write_original(table, opened, **options)

    async def execute_command(self: Any, *arguments: Any, **options: Any) -> Any:
        name = arguments[1] if arguments[0] == "EVAL" else arguments[0]
        before, after = _COMMANDS.get(name, (None, None))
        reach(before)
        reply = await execute_original(self, *arguments, **options)
        reach(after)
        return reply

    os.fsync = fsync
    event_log.pq.write_table = write_table
    Redis.execute_command = execute_command  # type: ignore[method-assign]
    sys.addaudithook(hook)


def kill_at_point(trials: Trials, point: str) -> bool:
    number = 1 if point == "folder" else trials.draw.randint(1, 4)
    status = os.waitpid(trials.fork_export(lambda: kill_at(point, number)), 0)[1]
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def kill_at_random(trials: Trials) -> bool:
    child = trials.fork_export()
    time.sleep(trials.draw.uniform(0, trials.seconds))
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--random", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    kills: Counter[str] = Counter()
    events = 0
    with tempfile.TemporaryDirectory(prefix="re4-") as name:
        server = RedisServer(Path(name))
        with running(server):
            trials = Trials(server, Path(name), arguments.seed)
            trials.send(100)
            trials.finish()
            plan = [*KILL_POINTS] * arguments.each + ["at random"] * arguments.random
            for trial, point in enumerate(plan):
                if trial % 10 == 0 or point == "folder":
                    trials.reset()
                trials.send(100)
                events += 101
                for _ in range(trials.draw.choice((1, 1, 2))):
                    if point == "at random":
                        kills[point] += kill_at_random(trials)
                    else:
                        kills[point] += kill_at_point(trials, point)
                if trial % 10 == 9:
                    trials.drop()
                trials.finish()
                if trial % _LOG_EVERY == 0:
                    output = f"{trial} of {len(plan)}: {dict(kills)}"
                    print(output, file=sys.stderr, flush=True)
    incomplete = [point for point in KILL_POINTS if kills[point] < arguments.each]
    print(
        json.dumps(
            {
                "passed": not (incomplete or trials.lost or trials.duplicates),
                "kills": sum(kills.values()),
                "at": kills,
                "events": events,
                "lost": trials.lost,
                "duplicates": trials.duplicates,
                "dropped_and_told": trials.dropped,
            }
        )
    )
    raise SystemExit(bool(incomplete or trials.lost or trials.duplicates))


if __name__ == "__main__":
    main()

"""Compaction erases from the event files what a tombstone has deleted, and changes nothing else."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data.errors import LogError
from training.data.event_compaction import Compacted, CompactionBusyError, compact_events
from training.data.event_window import DAY_S, Window, read_window
from training.data.log_options import LogOptions

Row = tuple[str, str | None, float, str | None, str | None, str | None]


def export(folder: Path, day: int, *rows: Row, name: str = "00_1.parquet") -> Path:
    """Rows of user, item, time in days, event, event id, entry; and a column of their own."""
    path = folder / f"date=1970-01-{day:02}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    users, items, days, events, ids, entries = zip(*rows, strict=True)
    columns = {
        "user_id": pa.array(users, pa.string()),
        "item_id": pa.array(items, pa.string()),
        "timestamp": pa.array([day * DAY_S for day in days], pa.float64()),
        "event": pa.array(events, pa.string()),
        "event_id": pa.array(ids, pa.string()),
        "entry": pa.array(entries, pa.string()),
        "shop": pa.array(["north"] * len(rows), pa.string()),
    }
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """u is forgotten on day 3; files of other users have nothing to erase."""
    folder = tmp_path / "events"
    export(folder, 1, ("u", "a", 1.0, None, "1", "10-0"), ("v", "a", 1.0, None, "1", "11-0"))
    export(folder, 2, ("u", "b", 2.0, None, "2", "20-0"))
    export(
        folder,
        3,
        ("u", None, 3.0, "forget", None, "30-0"),
        ("u", "again", 3.5, None, "2", "31-0"),  # the second event, sent once more
        ("u", "new", 3.6, None, "3", "32-0"),
    )
    export(folder, 9, ("u", "late", 2.5, None, "4", "40-0"), ("u", "ahead", 9.0, None, "5", "29-0"))
    export(folder, 4, ("w", "a", 4.0, None, "1", "41-0"))
    return folder


def window(events: Path) -> Window:
    return read_window(events, None, LogOptions(), (), None, 100 * DAY_S)


def all_rows(events: Path) -> list[dict[str, Any]]:
    files = sorted(events.glob("date=*/*.parquet"))
    return [row for path in files for row in pq.ParquetFile(path).read().to_pylist()]


def contents(events: Path) -> dict[str, bytes]:
    return {str(p.relative_to(events)): p.read_bytes() for p in events.rglob("*") if p.is_file()}


def test_rows_before_a_tombstone_are_gone_from_the_files(events: Path) -> None:
    before = window(events).rows
    untouched = (events / "date=1970-01-04" / "00_1.parquet").read_bytes()
    assert compact_events(events) == Compacted(rows=5, rewritten=2, removed=2)
    left = [(row["user_id"], row["item_id"]) for row in all_rows(events)]
    assert left == [("v", "a"), ("u", None), ("u", "new"), ("w", "a")]
    assert window(events).rows == before, "training reads the same"
    assert {row["shop"] for row in all_rows(events)} == {"north"}
    assert (events / "date=1970-01-04" / "00_1.parquet").read_bytes() == untouched
    assert not any(b"late" in content for content in contents(events).values())


def test_compaction_is_idempotent(events: Path) -> None:
    compact_events(events)
    before = contents(events)
    assert compact_events(events) == Compacted()
    assert contents(events) == before


def test_an_event_that_arrives_after_the_compaction_stays_deleted(events: Path) -> None:
    compact_events(events)
    export(events, 2, ("u", "late", 2.0, None, "9", "50-0"), name="00_2.parquet")
    assert ("u", "late") not in [
        (r["user_id"], r["item_id"]) for r in window(events).rows.to_pylist()
    ]
    assert compact_events(events).rows == 1


def test_without_tombstones_or_a_folder_nothing_changes(tmp_path: Path) -> None:
    export(tmp_path / "events", 1, ("u", "a", 1.0, None, "1", "1-0"))
    before = contents(tmp_path)
    assert compact_events(tmp_path / "events") == Compacted()
    assert {k: v for k, v in contents(tmp_path).items() if not k.endswith(".lock")} == before
    assert compact_events(tmp_path / "none") == Compacted()
    assert not (tmp_path / "none").exists()


def test_it_does_not_work_beside_an_export(events: Path) -> None:
    with (events / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CompactionBusyError, match="an export or a compaction is at work"):
            compact_events(events)


def test_a_damaged_file_is_named_and_nothing_is_erased(events: Path) -> None:
    damaged = events / "date=1970-01-04" / "00_1.parquet"
    damaged.write_bytes(b"PAR1")
    before = contents(events)
    with pytest.raises(LogError, match="not a Parquet file"):
        compact_events(events)
    assert {k: v for k, v in contents(events).items() if k != ".lock"} == before


KILLED = """
import os, signal, sys
from pathlib import Path
from training.data.event_compaction import compact_events
left = int(sys.argv[2])
def hook(event, arguments):
    global left
    if event in ("os.rename", "os.remove"):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
compact_events(Path(sys.argv[1]))
"""


def test_killed_at_any_change_it_leaves_whole_files_and_ends_the_next_time(
    events: Path, tmp_path: Path
) -> None:
    done = shutil.copytree(events, tmp_path / "done")
    compact_events(done)
    expected, training = all_rows(done), window(events).rows
    for point in range(1, 10):
        copy = shutil.copytree(events, tmp_path / f"killed-{point}")
        command = [sys.executable, "-c", KILLED, str(copy), str(point)]
        code = subprocess.run(command, cwd=Path(__file__).parents[3], check=False).returncode
        assert window(copy).rows == training
        compact_events(copy)
        assert all_rows(copy) == expected
        assert not [*copy.glob("date=*/.*")], "no partial file is left"
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert code == 0
    assert point > 4


def test_the_command_prints_what_it_erased(events: Path, tmp_path: Path, run_command) -> None:
    ended = run_command("compact-events", "--events", events)
    assert ended.exit_code == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == '{"rows": 5, "rewritten": 2, "removed": 2}'
    missing = run_command("compact-events", "--events", tmp_path / "none")
    assert missing.exit_code == 2
    assert "no such file or folder" in missing.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_fails(events: Path) -> None:
    folder = events / "date=1970-01-02"
    folder.chmod(0o500)
    with pytest.raises(OSError, match="Permission"):
        compact_events(events)

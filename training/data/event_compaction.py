"""Erasing from the event files what a tombstone has deleted.

Reading leaves such rows out already; compaction takes them out of the files. A file is replaced as
a whole, so that a reader, or a crash, finds it as it was or without them. Tombstones stay: they
also delete rows of the base log, and events that arrive later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.release.atomic_io import atomic_path, discard, fsync
from index.release.lock import exclusive_lock
from training.data.errors import LogError
from training.data.event_files import FORGET, event_files, is_in, read_event_file
from training.data.event_window import deleted_rows

_LOCK = ".lock"  # of the folder, which an export holds, too


class CompactionBusyError(LogError):
    """An export, or another compaction, works in the folder."""


@dataclass(frozen=True)
class Compacted:
    """rows: erased. rewritten, removed: files that lost some, and all, of their rows."""

    rows: int = 0
    rewritten: int = 0
    removed: int = 0


def compact_events(folder: Path) -> Compacted:
    """Erase the rows that a tombstone has deleted, and their repetitions.

    Killed at any moment and called again, it ends with the same files. Raises LogError, and changes
    nothing, for a damaged file; CompactionBusyError beside an export; OSError.
    """
    if not folder.is_dir():
        return Compacted()
    busy = CompactionBusyError(
        f"{folder}: an export or a compaction is at work; try again when it has ended"
    )
    with exclusive_lock(folder / _LOCK, busy):
        for partial in folder.glob("date=*/.*.parquet*"):  # of a process that was killed
            discard(partial)
        rows = rewritten = removed = 0
        # The last first: a repeated event must not count because only its first row is gone.
        for file, mask in reversed(_deleted_by_file(event_files(folder))):
            if mask.any():
                rows += int(mask.sum())
                removed += bool(mask.all())
                rewritten += not mask.all()
                _erase(file, mask)
        return Compacted(rows, rewritten, removed)


def _deleted_by_file(files: Sequence[Path]) -> list[tuple[Path, NDArray[np.bool_]]]:
    """The files with rows of forgotten users, and which of their rows are deleted.

    Only the rows of these users are in memory, and one file.
    """
    forgotten = list({user for file in files for user in _forgotten_by(read_event_file(file))})
    affected: list[tuple[Path, NDArray[np.bool_]]] = []
    tables: list[pa.Table] = []
    for file in files if forgotten else ():
        table = read_event_file(file)
        of_forgotten = is_in(table["user_id"], forgotten)
        if of_forgotten.any():
            affected.append((file, of_forgotten))
            tables.append(table.filter(pa.array(of_forgotten)))
    if not tables:
        return []
    deleted = deleted_rows(pa.concat_tables(tables).combine_chunks())
    ends = np.cumsum([len(table) for table in tables])
    for (_, mask), part in zip(affected, np.split(deleted, ends[:-1]), strict=True):
        mask[mask] = part
    return affected


def _forgotten_by(rows: pa.Table) -> list[str]:
    users: list[str] = pc.unique(
        rows["user_id"].filter(pc.equal(rows["event"], FORGET))
    ).to_pylist()
    return users


def _erase(file: Path, rows: NDArray[np.bool_]) -> None:
    """Take these rows out of the file; it is removed if none is left."""
    if rows.all():
        file.unlink()
        fsync(file.parent)
        return
    with pq.ParquetFile(file) as opened:
        kept = opened.read().filter(pa.array(~rows))
    with atomic_path(file) as temporary:
        pq.write_table(kept, temporary, compression="zstd")

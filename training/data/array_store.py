"""Where the arrays of a log are: in memory, or in files of a spill directory, mapped into it.

Whoever makes a long array appends its parts to a writer, and whoever reads one does it block by
block. So a log whose arrays are files takes the memory of one block.
"""

import fcntl
import mmap
import os
import shutil
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 22  # values that are in memory at a time
_PREFIX = "re4-log-"
_LOCK = ".lock"

T = TypeVar("T", bound=np.generic)


class ArrayWriter(Protocol[T]):
    def append(self, part: NDArray[T]) -> None: ...

    def finish(self) -> NDArray[T]:
        """The parts as one array, which is not to be written to. The writer is used up."""
        ...


class ArrayStore(Protocol):
    def writer(self, dtype: type[T]) -> ArrayWriter[T]: ...


class Memory:
    """Arrays in memory."""

    def writer(self, dtype: type[T]) -> ArrayWriter[T]:
        return _MemoryWriter(dtype)


class _MemoryWriter(ArrayWriter[T]):
    def __init__(self, dtype: type[T]) -> None:
        self._parts: list[NDArray[T]] = []
        self._dtype = dtype

    def append(self, part: NDArray[T]) -> None:
        self._parts.append(part.astype(self._dtype, copy=False))

    def finish(self) -> NDArray[T]:
        parts = self._parts or [np.empty(0, self._dtype)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


MEMORY = Memory()


class SpillFolder:
    """Arrays in files of a new folder, which is removed with the last of them, or at exit.

    A process that was killed leaves its folder; the next one that opens one beside it removes it.
    """

    def __init__(self, parent: Path | None = None) -> None:
        """parent: an existing folder; None means that of the system for temporary files."""
        parent = parent or Path(gettempdir())
        _remove_abandoned(parent)
        self.path = Path(mkdtemp(prefix=_PREFIX, dir=parent))
        lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        weakref.finalize(self, _remove, self.path, lock, os.getpid())
        self._names = map(str, count())

    def writer(self, dtype: type[T]) -> ArrayWriter[T]:
        return _FileWriter(self, self.path / next(self._names), dtype)


class _FileWriter(ArrayWriter[T]):
    def __init__(self, folder: SpillFolder, path: Path, dtype: type[T]) -> None:
        self._folder, self._path, self._dtype = folder, path, dtype
        self._file = path.open("wb")

    def append(self, part: NDArray[T]) -> None:
        self._file.write(np.ascontiguousarray(part, self._dtype).data)

    def finish(self) -> NDArray[T]:
        size = self._file.tell()
        self._file.close()
        if not size:
            return np.empty(0, self._dtype)
        array: MappedArray = _open_mapped(self._path, self._dtype)
        array.folder = self._folder
        return array


class MappedArray(np.memmap[Any, Any]):
    """An array in a file. Another process that it is sent to opens the file.

    folder: keeps the file; None in other processes.
    """

    folder: SpillFolder | None = None

    def __array_finalize__(self, source: Any) -> None:
        super().__array_finalize__(source)
        self.folder = getattr(source, "folder", None)

    def __reduce__(self) -> Any:
        if isinstance(self.base, mmap.mmap):
            return _open_mapped, (Path(str(self.filename)), self.dtype)
        return np.array(self).__reduce__()

    def forget(self) -> None:
        """Give the pages that were read back to the system, which may keep them cached."""
        pages: mmap.mmap | None = getattr(self, "_mmap", None)
        if pages is not None:
            pages.madvise(mmap.MADV_DONTNEED)


def _open_mapped(path: Path, dtype: Any) -> MappedArray:
    return MappedArray(path, dtype, "r")


def blocks(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Equal slices of arrays of one length, of at most BLOCK values each, in order."""
    for start in range(0, len(arrays[0]), BLOCK):
        yield tuple(np.asarray(array[start : start + BLOCK]) for array in arrays)
        forget(*arrays)


def forget(*arrays: NDArray[Any] | None) -> None:
    """Of those that are files, the pages that were read."""
    for array in arrays:
        if isinstance(array, MappedArray):
            array.forget()


def collect(store: ArrayStore, dtype: type[T], parts: Iterable[NDArray[T]]) -> NDArray[T]:
    """The parts, one after the other."""
    writer = store.writer(dtype)
    for part in parts:
        writer.append(part)
    return writer.finish()


def compress(store: ArrayStore, values: NDArray[T], mask: NDArray[np.bool_]) -> NDArray[T]:
    """The values under a mask."""
    return collect(store, values.dtype.type, (part[kept] for part, kept in blocks(values, mask)))


def counts_of(codes: NDArray[np.integer], size: int) -> NDArray[np.int64]:
    """(size,): how often each of the numbers below `size` occurs."""
    counts = np.zeros(size, dtype=np.int64)
    for (part,) in blocks(codes):
        counts += np.bincount(part, minlength=size)
    return counts


def _remove(folder: Path, lock: int, owner: int) -> None:
    if os.getpid() == owner:  # not at the exit of a process that was forked from it
        shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders whose process has ended: nobody holds their locks."""
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError):
            descriptor = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(descriptor)

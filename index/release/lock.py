"""One process at a time, by a lock on a file: the kernel takes it from a process that dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index.release.errors import ReleaseError
from index.release.manifest import MANIFEST


@contextmanager
def exclusive_lock(file: Path, refusal: Exception) -> Iterator[None]:
    """Hold the file's lock; raises `refusal` where another process holds it.

    The file is made if need be, in a folder that is there, and stays.
    """
    descriptor = open_to_lock(file, os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        yield
    finally:
        os.close(descriptor)


def open_to_lock(file: Path, flags: int = 0) -> int:
    """A descriptor, for writing where that is allowed: over NFS an exclusive lock is refused
    without. A file of another user may only be read, which does elsewhere."""
    try:
        return os.open(file, os.O_RDWR | flags, 0o666)
    except OSError:
        return os.open(file, os.O_RDONLY)


def hold(folder: Path) -> int:
    """A descriptor that keeps the release from being deletable until it, or the process, ends."""
    try:
        descriptor = os.open(folder / MANIFEST, os.O_RDONLY)
    except OSError as error:
        raise ReleaseError(f"{folder.name}: {MANIFEST} cannot be opened ({error})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ReleaseError(f"{folder.name}: is being deleted; open another release") from None
    except OSError:
        pass  # a file system without locks: no publisher can lock its root there to delete either
    return descriptor


@contextmanager
def deletable(folder: Path) -> Iterator[bool]:
    """Whether no process has the release open; if so, none can open it inside this context."""
    descriptor = open_to_lock(folder / MANIFEST)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError:
            # Held; or it cannot be locked at all, and so not told whether it is: then it stays, as
            # a release too many does no harm, and one too few takes a server's files away.
            free = False
        yield free
    finally:
        os.close(descriptor)

"""One process at a time, by a lock on a file: the kernel takes it from a process that dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(file: Path, refusal: Exception) -> Iterator[None]:
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

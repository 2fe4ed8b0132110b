"""One process at a time, by a lock on a file: the kernel takes it from a process that dies."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(file: Path, refusal: Exception) -> Iterator[None]:
    """Hold the file's lock; raises `refusal` where another process holds it.

    The file is made if need be, in a folder that is there, and stays.
    """
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        yield

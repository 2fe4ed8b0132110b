"""Locks on files, which the kernel releases when a process dies: one publisher, open releases."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index.release.errors import ReleaseError
from index.release.manifest import MANIFEST


@contextmanager
def exclusive_lock(file: Path, refusal: Exception) -> Iterator[None]:
    """Hold the file's lock; raises `refusal` if another process holds it.

    The file is created if needed, in a folder that exists, and stays.
    """
    descriptor = _open_for_lock(file, os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        yield
    finally:
        os.close(descriptor)


def acquire_shared_lock(folder: Path) -> int:
    """A descriptor that protects the release from deletion until it is closed.

    Raises ReleaseError if the release is being deleted or has no manifest.
    """
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
        pass  # no locks on this file system, so that no publisher can lock its root to delete
    return descriptor


@contextmanager
def deletion_lock(folder: Path) -> Iterator[bool]:
    """Whether no process has the release open; if so, none can open it inside the block."""
    descriptor = _open_for_lock(folder / MANIFEST)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_free = True
        except OSError:
            # A process holds it, or the file system has no locks. Then the release stays: one too
            # many does no harm, but deleting an open one would take a server's files away.
            is_free = False
        yield is_free
    finally:
        os.close(descriptor)


def _open_for_lock(file: Path, flags: int = 0) -> int:
    """A descriptor, writable if allowed: NFS refuses an exclusive lock on a read-only one.

    A file of another user may be readable only, which is enough on other file systems.
    """
    try:
        return os.open(file, os.O_RDWR | flags, 0o666)
    except OSError:
        return os.open(file, os.O_RDONLY)

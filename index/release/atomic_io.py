"""Files that a crash leaves whole, and removal of files and folders."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def fsync(path: Path) -> None:
    """Make a file's content, or a folder's entries, survive a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder: what the block writes there replaces `path` at its end.

    A reader, or a crash, finds the old file or the new one, whole. After an error `path` is as it
    was and the temporary file is removed; a process that is killed leaves `.<name>.<pid>` behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        fsync(temporary)
        temporary.replace(path)
    finally:
        discard(temporary)
    fsync(path.parent)


def replace_text(path: Path, text: str) -> None:
    """Replace the content of `path` by `text`, as atomic_path does."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def discard(path: Path) -> None:
    """Remove a file, a link or a folder as far as permissions allow; what remains is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def hide(folder: Path) -> Path:
    """Rename a folder to a hidden name, so that it is gone whole even if its removal fails."""
    hidden = folder.with_name(f".{folder.name}.{time.time_ns()}")
    folder.rename(hidden)
    return hidden

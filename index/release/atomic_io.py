"""What is written so that a crash leaves it whole, and what is taken away."""

import os
import shutil
from contextlib import suppress
from pathlib import Path


def fsync(path: Path) -> None:
    """Make a file's content, or a folder's entries, survive a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_text(path: Path, text: str) -> None:
    """Put `text` at path so that a reader, or a crash, finds the old or the new, whole."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        fsync(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    fsync(path.parent)


def discard(path: Path) -> None:
    """Remove a file, a link or a folder as far as that is allowed; what stays, stays unsaid."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()

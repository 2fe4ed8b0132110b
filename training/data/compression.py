"""Files that may be gzipped, which their first bytes say and not their names."""

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from training.data.interactions import LogError

_HEAD_BYTES = 1 << 16
_GZIP = b"\x1f\x8b"


def magic(path: Path) -> bytes:
    """The first four bytes. Raises LogError if there is no such file, or it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise unreadable(path, error) from error


def open_stream(path: Path) -> pa.NativeFile:
    """The content, for pyarrow to read; a damaged gzip gives OSError on reading."""
    return pa.input_stream(path, compression="gzip" if magic(path).startswith(_GZIP) else None)


@contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """The content, for Python to read. Raises LogError if that fails, as on a damaged gzip."""
    opener = gzip.open if magic(path).startswith(_GZIP) else open
    try:
        with opener(path, "rb") as file:
            yield cast(IO[bytes], file)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


def head(path: Path) -> list[str]:
    """The lines at the start of the file that are not blank, at least one; the last may be cut.

    Raises LogError if the file is empty.
    """
    with open_binary(path) as file:
        start = file.read(_HEAD_BYTES)
    text = start.decode("utf-8-sig", errors="replace")
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]
    if not lines:
        raise LogError(f"{path}: empty; give a file with a header or at least one line of data")
    return lines


def need_column(path: Path, names: Sequence[str], wanted: str) -> None:
    """Raises LogError, with the names there are, if the one wanted is not among them."""
    if wanted not in names:
        shown = ", ".join(" ".join(name[:40].split()) for name in names[:20])
        raise LogError(f"{path}: no column {wanted!r} among {shown}; add or rename it")


def unreadable(path: Path, error: Exception) -> LogError:
    """What to raise for an error of the file system or of gzip."""
    if isinstance(error, FileNotFoundError):
        return LogError(f"{path}: no such file or folder; check the path")
    if isinstance(error, IsADirectoryError):
        return LogError(f"{path}: a folder; only Parquet files are read from folders, name a file")
    said = getattr(error, "strerror", None) or reason(error)
    return LogError(f"{path}: cannot be read to its end ({said}); copy or download it again")


def not_parquet(path: Path, error: Exception) -> LogError:
    """What to raise for an error of pyarrow in reading Parquet."""
    if isinstance(error, FileNotFoundError | IsADirectoryError):
        return unreadable(path, error)
    said = reason(error)
    return LogError(f"{path}: not a Parquet file, or a damaged one ({said}); write it again")


def reason(error: Exception) -> str:
    """An error's text on one line, as libraries' are not always."""
    return " ".join(str(error).split())[:200]


# What pyarrow raises on Parquet files; the last on names and text that are not UTF-8.
PARQUET_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)

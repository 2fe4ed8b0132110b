"""Plain and gzipped files, told apart by their first bytes, not by their names."""

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from training.data.errors import LogError, unreadable_file

_HEAD_BYTES = 1 << 16
_GZIP_MAGIC = b"\x1f\x8b"


def magic_bytes(path: Path) -> bytes:
    """The first four bytes. Raises LogError if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise unreadable_file(path, error) from error


def open_stream(path: Path) -> pa.NativeFile:
    """The uncompressed content, for pyarrow; reading a damaged gzip raises OSError."""
    return pa.input_stream(path, compression="gzip" if _is_gzip(path) else None)


@contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """The uncompressed content, for Python. Raises LogError if reading fails."""
    opener = gzip.open if _is_gzip(path) else open
    try:
        with opener(path, "rb") as file:
            yield cast(IO[bytes], file)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable_file(path, error) from error


def head_lines(path: Path) -> list[str]:
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


def _is_gzip(path: Path) -> bool:
    return magic_bytes(path).startswith(_GZIP_MAGIC)

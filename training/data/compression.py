"""Plain and compressed files, told apart by their first bytes, not by their names."""

import bz2
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from training.data.errors import LogError, unreadable_file
from training.data.paths import to_open

_HEAD_BYTES = 1 << 16
# pyarrow's name for a compression, or zip, and the first bytes of a file.
_MAGIC = {
    "gzip": rb"\x1f\x8b",
    "bz2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    "zstd": rb"\x28\xb5\x2f\xfd",
    "zip": rb"PK\x03\x04",
}
_MAGIC_BYTES = 10
# What reading a damaged file raises; RuntimeError and NotImplementedError for a zip file with a
# password or a method that Python does not have.
READ_ERRORS = (
    OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError,
)  # fmt: skip


def magic_bytes(path: Path) -> bytes:
    """The first ten bytes. Raises LogError if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MAGIC_BYTES)
    except OSError as error:
        raise unreadable_file(path, error) from error


def is_compressed(path: Path) -> bool:
    return _compression(path) is not None


def open_stream(path: Path) -> pa.NativeFile:
    """The uncompressed content, for pyarrow; reading a damaged file raises one of READ_ERRORS."""
    kind = _compression(path)
    if kind == "zip":
        return pa.PythonFile(_open_zip(path), mode="r")
    return pa.input_stream(to_open(path), compression=kind)


@contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """The uncompressed content, for Python. Raises LogError if reading fails."""
    try:
        with _open(path) as file:
            yield file
    except READ_ERRORS as error:
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


def _open(path: Path) -> IO[bytes]:
    kind = _compression(path)
    if kind == "zip":
        return _open_zip(path)
    if kind == "zstd":
        return cast(IO[bytes], io.BufferedReader(pa.input_stream(to_open(path), compression=kind)))
    if kind == "gzip":
        return cast(IO[bytes], gzip.open(to_open(path), "rb"))
    return cast(IO[bytes], bz2.open(to_open(path), "rb") if kind == "bz2" else path.open("rb"))


def _open_zip(path: Path) -> IO[bytes]:
    """The one file in it. Raises LogError if there are none or several."""
    with zipfile.ZipFile(to_open(path)) as archive:
        names = [name for name in archive.namelist() if not re.search(r"(^|/)[._]|/$", name)]
        if len(names) != 1:
            shown = ", ".join(name[:80] for name in names[:10])
            raise LogError(
                f"{path}: a zip of {len(names):,} files ({shown}), where one is needed; extract it "
                "and name the log"
            )
        return archive.open(names[0])


def _compression(path: Path) -> str | None:
    start = magic_bytes(path)
    return next((kind for kind, magic in _MAGIC.items() if re.match(magic, start)), None)

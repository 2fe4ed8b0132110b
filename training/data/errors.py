"""LogError, and how the errors of libraries become one."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

# What pyarrow raises for Parquet files; the last for names and text that are not UTF-8.
PARQUET_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)


class LogError(ValueError):
    """The log or the items file cannot be used; one sentence says why and what to do."""


class UnmatchedError(LogError):
    """A filter or a join of two inputs has left nothing: one of the two is the wrong one."""


def require_column(path: Path, columns: Sequence[str], name: str) -> None:
    """Raises LogError, with the first columns of the file, if `name` is not among them."""
    if name not in columns:
        shown = ", ".join(" ".join(column[:40].split()) for column in columns[:20])
        raise LogError(f"{path}: no column {name!r} among {shown}; add or rename it")


def unreadable_file(path: Path, error: Exception) -> LogError:
    """The LogError for an error of the file system or of gzip."""
    if isinstance(error, FileNotFoundError):
        return LogError(f"{path}: no such file or folder; check the path")
    if isinstance(error, IsADirectoryError):
        return LogError(f"{path}: a folder; only Parquet files are read from folders, name a file")
    reason = getattr(error, "strerror", None) or one_line(error)
    return LogError(f"{path}: cannot be read to its end ({reason}); copy or download it again")


def invalid_parquet(path: Path, error: Exception) -> LogError:
    """The LogError for an error of pyarrow in reading Parquet."""
    if isinstance(error, FileNotFoundError | IsADirectoryError):
        return unreadable_file(path, error)
    reason = one_line(error)
    return LogError(f"{path}: not a Parquet file, or a damaged one ({reason}); write it again")


def one_line(error: Exception) -> str:
    """The error's text on one line, at most 200 characters."""
    return " ".join(str(error).split())[:200]

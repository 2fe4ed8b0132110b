"""The format of a log, detected by its name and its first lines."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from training.data.compression import head_lines, magic_bytes
from training.data.errors import LogError
from training.data.formats import FORMATS

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT")
# Amazon's item ids begin with B, those of books are their ISBN; no reviewer id looks like either.
_ASIN = re.compile(r"B[0-9A-Z]{9}|\d{9}[\dX]")


def detect_format(path: Path, format: str = "auto") -> str:
    """A key of FORMATS: the format named, or with auto the detected one.

    Raises LogError if the format named is unknown or none is detected.
    """
    if format != "auto" and format not in FORMATS:
        raise LogError(f"format: {format!r}; choose auto, {', '.join(FORMATS)}")
    if format != "auto":
        return format
    if path.is_dir() or path.suffix == ".parquet" or magic_bytes(path) == b"PAR1":
        return "parquet"
    detected = _detect_by_lines(path, head_lines(path))
    if detected is None:
        raise LogError(
            f"{path}: format not recognised by its first line; name one of {', '.join(FORMATS)}"
        )
    return detected


def _detect_by_lines(path: Path, lines: Sequence[str]) -> str | None:
    first = lines[0]
    tabbed = first.split("\t")
    if first.startswith("{"):
        return "amazon-json"
    if "::" in first:
        return "movielens-dat"
    if re.search(r":(token|float)\b", first):
        return "recbole"
    if len(tabbed) == 5 and _DATE.match(tabbed[1]):
        return "gowalla"
    if len(tabbed) == 4 and _NUMBER.fullmatch(tabbed[3]):
        return "movielens-100k"
    fields = next(csv.reader([first]))
    if {"userId", "movieId"} <= set(fields):
        return "movielens-csv"
    if len(fields) == 4 and all(_NUMBER.fullmatch(field) for field in fields[2:]):
        return _detect_amazon_csv(path, lines)
    return "csv" if len(fields) > 1 else None


def _detect_amazon_csv(path: Path, lines: Sequence[str]) -> str:
    """2014 has user,item,rating,timestamp, and 2018 item,user,rating,timestamp; no headers."""
    pairs = [line.split(",", 2)[:2] for line in lines if line.count(",") >= 2]
    first, second = (sum(bool(_ASIN.fullmatch(pair[side])) for pair in pairs) for side in (0, 1))
    if first == second:
        raise LogError(
            f"{path}: neither column holds Amazon item ids more often than the other; "
            "name the format: amazon-csv-2014 (user first) or amazon-csv-2018 (item first)"
        )
    return "amazon-csv-2018" if first > second else "amazon-csv-2014"

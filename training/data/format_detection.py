"""The format of a log, detected by its name and its first lines.

What fits two formats is refused: to take the wrong one would mix up users and items.
"""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from training.data.compression import head_lines, magic_bytes
from training.data.delimited import QUOTED_SEPARATORS
from training.data.errors import LogError
from training.data.formats import FORMATS, NATIVE

SEPARATORS = (",", "\t", ";", "|")

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\S+")
# Amazon's item ids begin with B, those of books are their ISBN; its user ids begin with A.
_ASIN = re.compile(r"B[0-9A-Z]{9}|\d{9}[\dX]")
_REVIEWER = re.compile(r"A[0-9A-Z]{9,27}")
_SHARE = 0.9  # of the lines that must fit; some may be damaged

_JSON_KEYS = {
    "amazon-json": {"reviewerID", "asin"},
    "amazon-json-2023": {"user_id", "parent_asin"},
    "otto": {"session", "events"},
    "steam": {"username", "product_id"},
}
_HEADERS = {
    "movielens-csv": {"userId", "movieId"},
    "amazon-csv-2023": {"user_id", "parent_asin", "timestamp"},
    "retailrocket": {"visitorid", "itemid", "timestamp"},
    "rees46": {"event_time", "event_type", "product_id", "user_id"},
}
# The fields of a line without a header, each a regular expression.
_SHAPES: Mapping[str, tuple[str, Sequence[str]]] = {
    "movielens-dat": ("::", (r"\d+", r"\d+", r"[0-5](\.[05])?", r"\d+")),
    # The ratings of u.data are from September 1997 to April 1998.
    "movielens-100k": ("\t", (r"\d{1,3}", r"\d{1,4}", r"[1-5]", r"8[789]\d{7}")),
    "gowalla": ("\t", (r"\d+", _ISO_TIME.pattern, *[r"-?\d+(\.\d+)?(e-?\d+)?"] * 2, r".+")),
    "mind": ("\t", (r"\d+", r"U\d+", r"\d+/\d+/\d{4} [\d:]+ [AP]M", r"(N\d+ ?)*", r".*")),
    "lastfm-1k": ("\t", (r"user_\d{6}", _ISO_TIME.pattern, r"[0-9a-f-]*", r".*", r".*", r".*")),
    "taobao": (",", (r"\d+", r"\d+", r"\d+", r"pv|buy|cart|fav", r"1[45]\d{8}")),
    "yoochoose": (",", (r"\d+", r"2014-\d\d-\d\dT\S+Z", r"\d{9,10}", r"S|\w+")),
    "yoochoose-buys": (",", (r"\d+", r"2014-\d\d-\d\dT\S+Z", r"\d{9,10}", r"\d+", r"\d+")),
    "steam-200k": (",", (r"\d+", r".+", r"purchase|play", r"[\d.]+", r"0")),
}


def detect_format(path: Path, format: str = "auto") -> str:
    """A key of FORMATS: the format named, or with auto the detected one, of a file.

    Raises LogError if the format named is unknown or none is detected.
    """
    if format != "auto" and format not in FORMATS:
        raise LogError(f"format: {format!r}; choose auto, {', '.join(FORMATS)}")
    if format != "auto":
        return format
    if path.suffix == ".parquet" or magic_bytes(path).startswith(b"PAR1"):
        return "parquet"
    lines = head_lines(path)
    detected = _detect_by_lines(path, lines[:-1] if len(lines) > 1 else lines)
    if detected is None:
        raise LogError(
            f"{path}: format not recognised by its first lines; if they are no header, name the "
            f"columns with --column-names; or name one of {', '.join(FORMATS)}"
        )
    return detected


def split_fields(line: str, separator: str) -> list[str]:
    """The fields of a line."""
    if separator in QUOTED_SEPARATORS:
        return next(csv.reader([line], delimiter=separator))
    return line.split(separator)


def find_separator(line: str, is_right: Callable[[Sequence[str]], bool]) -> str:
    """The first separator with which the fields of the line are right, or the most frequent."""
    by_separator = {separator: split_fields(line, separator) for separator in SEPARATORS}
    for separator, fields in by_separator.items():
        if is_right(fields):
            return separator
    return max(SEPARATORS, key=lambda separator: len(by_separator[separator]))


def _detect_by_lines(path: Path, lines: Sequence[str]) -> str | None:
    first = lines[0]
    if first.startswith("{"):
        keys = set(re.findall(r"[\"']([^\"']+)[\"']\s*:", first))
        return next((name for name, known in _JSON_KEYS.items() if known <= keys), "json")
    if re.search(r":(token|float)\b", first):
        return "recbole"
    fitting = [name for name, shape in _SHAPES.items() if _fits(lines, *shape)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting or "::" in first:
        return None
    separator = find_separator(first, lambda fields: not NATIVE.missing(fields))
    fields = split_fields(first, separator)
    if not NATIVE.missing(fields):
        return "tsv" if separator == "\t" else "csv"
    if known := _detect_by_header(separator, set(fields)):
        return known
    numbers = all(map(_NUMBER.fullmatch, fields[2:]))
    if separator == "," and len(fields) == 4 and numbers:
        return _detect_amazon_csv(path, lines)
    if len(fields) < 2:
        return None
    _refuse_data(path, fields)
    return "tsv" if separator == "\t" else "csv"


def _detect_by_header(separator: str, fields: set[str]) -> str | None:
    if separator == ";" and {"eventdate", "timeframe"} <= fields:
        return "diginetica"
    if separator != ",":
        return None
    if {"user_id", "item_id", "click"} <= fields:
        return "tenrec"
    return next((name for name, known in _HEADERS.items() if known <= fields), None)


def _fits(lines: Sequence[str], separator: str, patterns: Sequence[str]) -> bool:
    rows = (split_fields(line, separator) for line in lines)
    fitting = (len(row) == len(patterns) and all(map(re.fullmatch, patterns, row)) for row in rows)
    return sum(fitting) >= _SHARE * len(lines)


def _refuse_data(path: Path, fields: Sequence[str]) -> None:
    """Raises LogError if the first line is no header: a field of it is a number or a time."""
    values = [f for f in fields if _NUMBER.fullmatch(f) or _ISO_TIME.fullmatch(f)]
    if values:
        raise LogError(
            f"{path}: the first line is no header, as {values[0]!r:.80} is no name, and the lines "
            "fit no known format, or several; name the columns with --column-names, such as "
            "user_id,item_id,timestamp, or the format with --format"
        )


def _detect_amazon_csv(path: Path, lines: Sequence[str]) -> str:
    """2014 has user,item,rating,timestamp, and 2018 item,user,rating,timestamp; no headers."""
    pairs = [line.split(",", 2)[:2] for line in lines if line.count(",") >= 2]

    def share(user: int, item: int) -> float:
        fits = (_REVIEWER.fullmatch(p[user]) and _ASIN.fullmatch(p[item]) for p in pairs)
        return sum(map(bool, fits)) / len(pairs)

    fitting = [
        name
        for name, user, item in (("amazon-csv-2014", 0, 1), ("amazon-csv-2018", 1, 0))
        if share(user, item) >= _SHARE
    ]
    if len(fitting) == 1:
        return fitting[0]
    raise LogError(
        f"{path}: four fields without a header, whose ids do not show which column is the user; "
        "name the format with --format: amazon-csv-2014 (user, item, rating, time) or "
        "amazon-csv-2018 (item, user, rating, time); or the columns with --column-names"
    )

"""Item files to titles, which people read, and categories, which filters use."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from training.data.compression import head_lines, magic_bytes, open_binary
from training.data.errors import PARQUET_ERRORS, LogError, invalid_parquet, require_column
from training.data.matching import check_matches, warn

_Row = tuple[str, str | None, str | None]  # id, title, category

_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
_FIELDS_100K = 5 + len(_GENRES_100K)  # id, title, two dates, URL, and one flag per genre
_RECBOLE_TITLES = ("title", "movie_title", "name", "item_name")
_RECBOLE_CATEGORIES = ("category", "categories", "class", "genre", "genres")


class ItemDetails(NamedTuple):
    """Title and category of an item; None where unknown."""

    title: str | None
    category: str | None


def read_items(path: Path, format: str = "auto") -> dict[str, ItemDetails]:
    """Title and category by item id; None where the file has nothing.

    format: a key of ITEM_FORMATS, or auto: detected by name and content. An item has one category,
    so that filters and diversity have a small set to work with: the first of several genres. The
    later of two lines with the same id wins.
    Raises LogError if the file does not have the format.
    """
    if format != "auto" and format not in ITEM_FORMATS:
        raise LogError(f"format: {format!r}; choose auto, {', '.join(ITEM_FORMATS)}")
    rows = ITEM_FORMATS[_detect_format(path) if format == "auto" else format](path)
    items = {key: ItemDetails(title or None, category or None) for key, title, category in rows}
    if not items:
        raise LogError(f"{path}: no items; give a file with at least one")
    if not any(item.title or item.category for item in items.values()):
        warn(
            f"{path}: 0 of {len(items):,} items have a title or category; name the columns "
            "item_id, title and category"
        )
    return items


def check_items(items: Mapping[str, ItemDetails], item_ids: Sequence[str]) -> None:
    """Warn if the item file has few of the log's items. Raises UnmatchedError if it has none."""
    known = sum(item_id in items for item_id in item_ids)
    first, other = min(item_ids), min(items)
    remedy = f"both need the same ids, where the log has such as {first!r} and the file {other!r}"
    check_matches("items", known, len(item_ids), "items of the log are in the item file", remedy)


def _detect_format(path: Path) -> str:
    if path.suffix == ".parquet" or magic_bytes(path) == b"PAR1":
        return "parquet"
    first = head_lines(path)[0]
    if "::" in first:
        return "movielens-dat"
    if first.count("|") == _FIELDS_100K - 1:
        return "movielens-100k"
    if ":token" in first:
        return "recbole"
    return "movielens-csv" if first.startswith("movieId,") else "csv"


def _csv(path: Path) -> Iterator[_Row]:
    for record in _table(path, ",", "item_id"):
        yield record["item_id"], record.get("title"), record.get("category")


def _movielens_csv(path: Path) -> Iterator[_Row]:
    for record in _table(path, ",", "movieId"):
        yield record["movieId"], record.get("title"), _first_genre(record.get("genres", ""))


def _movielens_dat(path: Path) -> Iterator[_Row]:
    for key, title, genres in _split(path, "::", 3):
        yield key, title, _first_genre(genres)


def _movielens_100k(path: Path) -> Iterator[_Row]:
    for key, title, _, _, _, *flags in _split(path, "|", _FIELDS_100K):
        genres = (genre for genre, flag in zip(_GENRES_100K, flags, strict=True) if flag == "1")
        yield key, title, next(genres, None)


def _first_genre(genres: str) -> str | None:
    return None if genres == "(no genres listed)" else genres.split("|")[0]


def _recbole(path: Path) -> Iterator[_Row]:
    """The column names of RecBole's own data sets; several categories are separated by spaces, or
    by commas if they are phrases."""
    for record in _table(path, "\t", "item_id"):
        title = next((record[name] for name in _RECBOLE_TITLES if name in record), None)
        categories = next((record[name] for name in _RECBOLE_CATEGORIES if name in record), "")
        first = categories.partition("," if "," in categories else " ")[0]
        yield record["item_id"], title, first.strip("'\" ")


def _parquet(path: Path) -> Iterator[_Row]:
    try:
        table = pq.ParquetFile(path).read()
        names = table.column_names
        require_column(path, names, "item_id")
        return zip(
            *(
                table[name].cast(pa.string()).to_pylist()
                if name in names
                else repeat(None, len(table))
                for name in ("item_id", "title", "category")
            ),
            strict=True,
        )
    except PARQUET_ERRORS as error:
        raise invalid_parquet(path, error) from error


def _table(path: Path, separator: str, key: str) -> Iterator[dict[str, str]]:
    """Records by the names of the header line; a name may carry a type, as RecBole's do."""
    rows = _rows(path, separator)
    _, header = next(rows, (0, []))
    if not header:
        return
    names = [name.partition(":")[0].strip() for name in header]
    require_column(path, names, key)
    for line, row in rows:
        if len(row) != len(names):
            raise _wrong_width(path, line, len(row), len(names))
        yield dict(zip(names, row, strict=True))


def _rows(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Each line that is not blank, after its number; only comma-separated fields may be quoted."""
    reader = csv.reader(
        _lines(path),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE,
    )
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise LogError(f"{path}, line {reader.line_num:,}: {error}; correct the line") from error


def _split(path: Path, separator: str, width: int) -> Iterator[list[str]]:
    for number, line in enumerate(_lines(path, latin_1=True), start=1):
        fields = line.rstrip("\r\n").split(separator)
        if len(fields) != width:
            raise _wrong_width(path, number, len(fields), width)
        yield fields


def _wrong_width(path: Path, line: int, found: int, width: int) -> LogError:
    return LogError(
        f"{path}, line {line:,}: {found} fields where {width} are needed; correct the line"
    )


def _lines(path: Path, latin_1: bool = False) -> Iterator[str]:
    """Lines of UTF-8; with latin_1, other lines are Latin-1, as in old MovieLens files."""
    with open_binary(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                if not latin_1:
                    raise LogError(
                        f"{path}, line {number:,}: not UTF-8; convert the file"
                    ) from None
                yield line.decode("latin-1")


ITEM_FORMATS: Mapping[str, Callable[[Path], Iterator[_Row]]] = {
    "csv": _csv,
    "parquet": _parquet,
    "movielens-csv": _movielens_csv,
    "movielens-dat": _movielens_dat,
    "movielens-100k": _movielens_100k,
    "recbole": _recbole,
}

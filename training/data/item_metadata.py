"""Item files to titles, which people read, and categories and attributes, which filters use."""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from index.retrieval.details import Details
from training.data.compression import head_lines, magic_bytes, open_binary
from training.data.errors import PARQUET_ERRORS, LogError, invalid_parquet, require_column
from training.data.item_attributes import Attributes, parse_columns, parse_texts
from training.data.matching import check_matches, warn
from training.data.paths import to_open
from training.data.stray_quotes import stray_quotes

_NO_ATTRIBUTES: Attributes = MappingProxyType({})
# id, title, categories, attributes
_Row = tuple[str, str | None, Sequence[str | None] | None, Attributes]

_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
_FIELDS_100K = 5 + len(_GENRES_100K)  # id, title, two dates, URL, and one flag per genre
_CATEGORIES = ("category", "categories", "genre", "genres")
_NO_GENRE = "(no genres listed)"
_RECBOLE_TITLES = ("title", "movie_title", "name", "item_name")
_RECBOLE_CATEGORIES = ("category", "categories", "class", "genre", "genres")


class ItemDetails(NamedTuple):
    """Title and first category of an item, None where unknown; its other categories, attributes."""

    title: str | None
    category: str | None
    other_categories: tuple[str, ...] = ()
    attributes: Attributes = _NO_ATTRIBUTES

    @property
    def known(self) -> Details:
        """The same, as releases and the service know it."""
        names = [] if self.category is None else [self.category, *self.other_categories]
        return Details(self.title, names or None, self.attributes)


def read_items(path: Path, format: str = "auto") -> dict[str, ItemDetails]:
    """Title, category and attributes by item id; None where the file has nothing.

    format: a key of ITEM_FORMATS, or auto: detected by name and content. Several categories are
    separated by |, or a list. Filters use all of them; diversity, which needs one category an item,
    the first. The later of two lines with the same id wins.
    Raises LogError if the file does not have the format.
    """
    if format != "auto" and format not in ITEM_FORMATS:
        raise LogError(f"format: {format!r}; choose auto, {', '.join(ITEM_FORMATS)}")
    rows = ITEM_FORMATS[_detect_format(path) if format == "auto" else format](path)
    items = {
        key: make_details(title, categories)._replace(attributes=attributes)
        for key, title, categories, attributes in rows
    }
    if not items:
        raise LogError(f"{path}: no items; give a file with at least one")
    if not any(item.title or item.category for item in items.values()):
        warn(
            f"{path}: 0 of {len(items):,} items have a title or category; name the columns "
            "item_id, title and category"
        )
    return items


def make_details(title: str | None, categories: Sequence[str | None] | None) -> ItemDetails:
    """Without attributes; the first category is the one that diversity uses."""
    stripped = (name.strip() for name in categories or () if name)
    names = dict.fromkeys(name for name in stripped if name and name != _NO_GENRE)
    first, *others = names or [None]
    return ItemDetails(title or None, first, tuple(name for name in others if name))


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
    names = ("item_id", ("title",), _CATEGORIES)
    for key, title, categories, attributes in _records(path, ",", *names):
        yield key, title, (categories or "").split("|"), attributes


def _movielens_csv(path: Path) -> Iterator[_Row]:
    names = ("movieId", ("title",), ("genres",))
    for key, title, categories, attributes in _records(path, ",", *names):
        yield key, title, (categories or "").split("|"), attributes


def _movielens_dat(path: Path) -> Iterator[_Row]:
    for key, title, genres in _split(path, "::", 3):
        yield key, title, genres.split("|"), _NO_ATTRIBUTES


def _movielens_100k(path: Path) -> Iterator[_Row]:
    for key, title, _, _, _, *flags in _split(path, "|", _FIELDS_100K):
        genres = [g for g, flag in zip(_GENRES_100K, flags, strict=True) if flag == "1"]
        yield key, title, genres, _NO_ATTRIBUTES


def _recbole(path: Path) -> Iterator[_Row]:
    """The column names of RecBole's own data sets; several categories are separated by spaces, or
    by commas if they are phrases."""
    names = ("item_id", _RECBOLE_TITLES, _RECBOLE_CATEGORIES)
    for key, title, text, attributes in _records(path, "\t", *names):
        categories = (text or "").split("," if "," in (text or "") else " ")
        yield key, title, [name.strip("'\" ") for name in categories], attributes


def _records(
    path: Path, separator: str, key: str, titles: Sequence[str], categories: Sequence[str]
) -> Iterator[tuple[str, str | None, str | None, Attributes]]:
    """Of each line the key, the first of those columns, None without, and the others' values."""
    records = [*_table(path, separator, key)]
    names = [*records[0]] if records else []
    title = next((name for name in titles if name in names), None)
    category = next((name for name in categories if name in names), None)
    others = [name for name in names if name not in (key, title, category)]
    for record, attributes in zip(records, parse_texts(records, others), strict=True):
        yield record[key], title and record[title], category and record[category], attributes


def _parquet(path: Path) -> Iterator[_Row]:
    """A category may be text, or a list of texts."""
    try:
        table = pq.ParquetFile(to_open(path)).read()
        names = table.column_names
        require_column(path, names, "item_id")
        ids = table["item_id"].cast(pa.string()).to_pylist()
        none = [None] * len(table)
        titles = table["title"].cast(pa.string()).to_pylist() if "title" in names else none
        column = next((name for name in _CATEGORIES if name in names), None)
        categories = none if column is None else _to_lists(table[column])
        others = [name for name in names if name not in ("item_id", "title", column)]
        return zip(ids, titles, categories, parse_columns(path, table, others), strict=True)
    except PARQUET_ERRORS as error:
        raise invalid_parquet(path, error) from error


def _to_lists(column: pa.ChunkedArray) -> list[Sequence[str | None] | None]:
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lists: list[Sequence[str | None] | None] = column.cast(pa.list_(pa.string())).to_pylist()
        return lists
    texts = column.cast(pa.string()).to_pylist()
    return [text and text.split("|") for text in texts]


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
    is_quoted = separator == ","
    if is_quoted:
        _refuse_stray_quotes(path)
    reader = csv.reader(
        _lines(path),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE,
    )
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise LogError(f"{path}, line {reader.line_num:,}: {error}; correct the line") from error


def _refuse_stray_quotes(path: Path) -> None:
    """Raises LogError, naming the line, for a quote that makes one title of several items."""
    head = [next(csv.reader([line])) for line in head_lines(path)]
    width, key = len(head[0]), _key_position(head[0])
    forms = {_form(fields[key]) for fields in head[1:] if len(fields) == width}

    def is_record(fields: Sequence[str]) -> int | None:
        """A line of text may have as many commas, but spaces follow them, and no id precedes."""
        if len(fields) != width or any(field.startswith(" ") for field in fields):
            return None
        return key if _form(fields[key].strip('"')) in forms else None

    for number, problem in stray_quotes(enumerate(_lines(path), start=1), ",", is_record):
        raise LogError(f"{path}, line {number:,}: {problem}")


def _key_position(header: Sequence[str]) -> int:
    names = [name.strip() for name in header]
    return next((names.index(name) for name in ("item_id", "movieId") if name in names), 0)


def _form(item_id: str) -> str:
    """Its letters as a, its digits as 0: ids of one file have few forms."""
    return re.sub(r"\d+", "0", re.sub(r"[^\W\d_]+", "a", item_id))


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

"""What the files of a log look like: each format turns a path into blocks of raw columns, and says
where in the file a record stands. Judges no value."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from training.data.compression import (
    PARQUET_ERRORS,
    head,
    need_column,
    not_parquet,
    open_binary,
    open_stream,
    reason,
    unreadable,
)
from training.data.interactions import LogError

_BLOCK_BYTES = 8 << 20  # the longest line that can be read; several blocks are in memory at once
_BLOCK_ROWS = 1 << 18


class Block(NamedTuple):
    """Consecutive records of one file, columns as they stand there; text is binary or string.

    place(i): the file and line of record i of the block, in words; may read the file again.
    events, weights: None if the file has no such column.
    """

    place: Callable[[int], str]
    users: pa.Array
    items: pa.Array
    times: pa.Array
    events: pa.Array | None
    weights: pa.Array | None


class Format(Protocol):
    def blocks(self, path: Path) -> Iterator[Block]:
        """Raises LogError if the file is damaged or lacks a column."""
        ...


@dataclass(frozen=True)
class Columns:
    """What a format calls its columns. A file may lack those of event and weight."""

    user: str
    item: str
    time: str
    event: str | None = None
    weight: str | None = None

    def find(self, path: Path, names: Sequence[str]) -> list[int | None]:
        """Where user, item, time, event and weight stand among the names of a file's columns.

        A name may carry a type, as RecBole's `user_id:token`. Raises LogError if user, item or
        time is missing.
        """
        plain = [name.partition(":")[0].strip() for name in names]
        for wanted in (self.user, self.item, self.time):
            need_column(path, plain, wanted)
        return [plain.index(name) if name in plain else None for name in astuple(self)]


@dataclass(frozen=True)
class Delimited:
    """Lines of fields, gzipped or not; those separated by commas may be quoted.

    names: the columns of a file that has no header line.
    """

    columns: Columns
    separator: str = ","
    names: tuple[str, ...] = ()

    def blocks(self, path: Path) -> Iterator[Block]:
        names = self._names(path)
        used = [None if p is None else str(p) for p in self.columns.find(path, names)]
        first = 0
        try:
            with self._open(path, len(names), [label for label in used if label]) as reader:
                for batch in reader:
                    columns = [None if label is None else batch[label] for label in used]
                    yield Block(partial(self._place, path, first), *columns)
                    first += len(batch)
        except pa.ArrowInvalid as error:
            raise self._malformed(path, len(names), error) from error
        except OSError as error:
            raise unreadable(path, error) from error

    def _names(self, path: Path) -> Sequence[str]:
        first, *others = head(path)
        if self.names:
            return self.names
        if not others:
            raise LogError(f"{path}: one line only; a header and interactions below it are needed")
        header: list[str] = next(csv.reader([first], delimiter=self.separator))
        return header

    def _open(self, path: Path, width: int, used: Sequence[str]) -> pa_csv.CSVStreamingReader:
        """Columns go by their place, as text: a header may name one twice, or none."""
        return pa_csv.open_csv(
            open_stream(path),
            pa_csv.ReadOptions(
                column_names=[str(place) for place in range(width)],
                skip_rows=0 if self.names else 1,
                block_size=_BLOCK_BYTES,
            ),
            pa_csv.ParseOptions(
                delimiter=self.separator,
                quote_char='"' if self._quoted else False,
                newlines_in_values=self._quoted,
            ),
            pa_csv.ConvertOptions(
                include_columns=used, column_types=dict.fromkeys(used, pa.binary())
            ),
        )

    @property
    def _quoted(self) -> bool:
        return self.separator == ","

    def _records(self, path: Path) -> Iterator[tuple[int, list[str]]]:
        """Each record below the header and the line of the file on which it starts."""
        csv.field_size_limit(_BLOCK_BYTES)
        with open_binary(path) as file:
            text = io.TextIOWrapper(file, "latin-1", newline="")  # an encoding that fits any byte
            reader = csv.reader(
                text,
                delimiter=self.separator,
                quoting=csv.QUOTE_MINIMAL if self._quoted else csv.QUOTE_NONE,
            )
            start = 1
            for fields in reader:
                if fields and (self.names or start > 1):
                    yield start, fields
                start = reader.line_num + 1

    def _place(self, path: Path, first: int, record: int) -> str:
        line, _ = next(islice(self._records(path), first + record, None))
        return f"{path}, line {line:,}"

    def _malformed(self, path: Path, width: int, error: Exception) -> LogError:
        for line, fields in self._records(path):
            if len(fields) != width:
                return LogError(
                    f"{path}, line {line:,}: {len(fields)} fields where {width} are needed; "
                    "correct or remove the line"
                )
        return LogError(f"{path}: cannot be read as lines of {width} fields ({reason(error)})")


class _JsonKind(NamedTuple):
    """A type of value: its name, in arrow, and in Python; a key may also be absent or null."""

    name: str
    column: pa.DataType
    values: tuple[type, ...]


_TEXT = _JsonKind("string", pa.string(), (str, type(None)))
_NUMBER = _JsonKind("number", pa.float64(), (int, float, type(None)))


@dataclass(frozen=True)
class JsonLines:
    """One JSON object a line, gzipped or not; keys that are not asked for are ignored."""

    columns: Columns

    def blocks(self, path: Path) -> Iterator[Block]:
        self._check_first(path)
        schema = pa.schema((name, kind.column) for name, kind in self._kinds())
        first = 0
        try:
            with pa_json.open_json(
                open_stream(path),
                pa_json.ReadOptions(block_size=_BLOCK_BYTES),
                pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            ) as reader:
                for batch in reader:
                    columns = [batch[name] if name else None for name in astuple(self.columns)]
                    yield Block(partial(self._place, path, first), *columns)
                    first += len(batch)
        except pa.ArrowInvalid as error:
            raise self._malformed(path, error) from error
        except OSError as error:
            raise unreadable(path, error) from error

    def _kinds(self) -> Iterator[tuple[str, _JsonKind]]:
        kinds = (_TEXT, _TEXT, _NUMBER, _TEXT, _NUMBER)
        return ((n, k) for n, k in zip(astuple(self.columns), kinds, strict=True) if n)

    def _lines(self, path: Path) -> Iterator[tuple[int, bytes]]:
        with open_binary(path) as file:
            yield from ((n, line) for n, line in enumerate(file, start=1) if line.strip())

    def _check_first(self, path: Path) -> None:
        head(path)  # refuses a file without lines
        number, line = next(self._lines(path))
        if complaint := self._complaint(line):
            raise LogError(f"{path}, line {number:,}: {complaint}")
        self.columns.find(path, list(json.loads(line)))

    def _place(self, path: Path, first: int, record: int) -> str:
        number, _ = next(islice(self._lines(path), first + record, None))
        return f"{path}, line {number:,}"

    def _complaint(self, line: bytes) -> str | None:
        """What keeps a line from being read, if anything does."""
        try:
            record = json.loads(line)
        except ValueError as error:
            return f"not JSON ({reason(error)}); correct or remove the line"
        if not isinstance(record, dict):
            return "not a JSON object; correct or remove the line"
        for name, kind in self._kinds():
            if not isinstance(record.get(name), kind.values):
                return f"{name} is {record[name]!r}; it must be a {kind.name}"
        return None

    def _malformed(self, path: Path, error: Exception) -> LogError:
        for number, line in self._lines(path):
            if complaint := self._complaint(line):
                return LogError(f"{path}, line {number:,}: {complaint}")
        return LogError(f"{path}: cannot be read as lines of JSON ({reason(error)})")


@dataclass(frozen=True)
class Parquet:
    """A Parquet file, or all those in a folder and its folders, as date partitions are.

    Names that begin with a dot or an underscore are passed over: they are unfinished, or no data.
    """

    columns: Columns

    def blocks(self, path: Path) -> Iterator[Block]:
        for file in self._files(path):
            yield from self._file_blocks(file)

    def _files(self, path: Path) -> list[Path]:
        if not path.is_dir():
            return [path]
        found = (file.relative_to(path) for file in path.rglob("*.parquet") if file.is_file())
        files = [path / f for f in sorted(found) if not any(p[0] in "._" for p in f.parts)]
        if not files:
            raise LogError(
                f"{path}: a folder without a .parquet file; name a file, or another folder"
            )
        return files

    def _file_blocks(self, file: Path) -> Iterator[Block]:
        try:
            with pq.ParquetFile(file) as parquet:
                names = parquet.schema_arrow.names
                found = self.columns.find(file, names)
                chosen = [None if place is None else names[place] for place in found]
                first = 1
                for batch in parquet.iter_batches(
                    _BLOCK_ROWS, columns=[name for name in chosen if name]
                ):
                    columns = [None if name is None else batch[name] for name in chosen]
                    yield Block(partial(self._place, file, first), *columns)
                    first += len(batch)
        except PARQUET_ERRORS as error:
            raise not_parquet(file, error) from error

    def _place(self, file: Path, first: int, record: int) -> str:
        return f"{file}, row {first + record:,}"


_RATING = ("user", "item", "rating", "timestamp")
_AMAZON = Columns("user", "item", "timestamp", weight="rating")

FORMATS: Mapping[str, Format] = {
    "csv": Delimited(Columns("user_id", "item_id", "timestamp", "event", "weight")),
    "parquet": Parquet(Columns("user_id", "item_id", "timestamp", "event", "weight")),
    "movielens-csv": Delimited(Columns("userId", "movieId", "timestamp", weight="rating")),
    # user::item::rating::timestamp, read as fields between single colons, every second one empty
    "movielens-dat": Delimited(_AMAZON, ":", ("user", "", "item", "", "rating", "", "timestamp")),
    "movielens-100k": Delimited(_AMAZON, "\t", _RATING),
    "amazon-json": JsonLines(Columns("reviewerID", "asin", "unixReviewTime", weight="overall")),
    "amazon-csv-2014": Delimited(_AMAZON, names=_RATING),
    "amazon-csv-2018": Delimited(_AMAZON, names=("item", "user", "rating", "timestamp")),
    "gowalla": Delimited(
        Columns("user", "location", "time"), "\t", ("user", "time", "lat", "lon", "location")
    ),
    "recbole": Delimited(Columns("user_id", "item_id", "timestamp", weight="rating"), "\t"),
}

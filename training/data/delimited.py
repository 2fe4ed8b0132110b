"""Log files of delimited fields: comma, tab or another separator; with a header line or without."""

import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from training.data.bad_rows import BadRows
from training.data.columns import BLOCK_BYTES, Block, Columns
from training.data.compression import READ_ERRORS, head_lines, open_binary, open_stream
from training.data.errors import LogError, one_line, unreadable_file
from training.data.stray_quotes import NumberedLine, stray_quotes

QUOTED_SEPARATORS = ",;"
_TIME = re.compile(r"-?\d+(\.\d+)?|\d{4}-\d\d-\d\d([T ][\d:.]+( ?(Z|UTC|[+-][\d:]+))?)?")


@dataclass(frozen=True)
class Delimited:
    """Delimited lines, compressed or not; fields separated by comma or semicolon may be quoted.

    names: the columns of a file that has no header line. impressions: the item column lists items
    shown, separated by spaces, each with -1 if it was clicked, or -0: the clicked ones are read.
    """

    columns: Columns
    separator: str = ","
    names: tuple[str, ...] = ()
    impressions: bool = False

    def blocks(self, path: Path, bad: BadRows) -> Iterator[Block]:
        names = self._names(path)
        if not names:
            return
        positions = self.columns.find(path, names)
        labels = [None if p is None else str(p) for p in positions]
        dropped = self._unusable_lines(path, len(names), positions, bad)
        first = 0
        try:
            used = list(dict.fromkeys(filter(None, labels)))
            with self._open(path, len(names), used, dropped) as reader:
                for batch in reader:
                    columns = [None if label is None else batch[label] for label in labels]
                    block = Block(partial(self._locate, path, dropped, first), *columns)
                    yield _clicked_items(block) if self.impressions else block
                    first += len(batch)
        except pa.ArrowInvalid as error:
            raise self._malformed(path, len(names), error) from error
        except READ_ERRORS as error:
            raise unreadable_file(path, error) from error

    def _names(self, path: Path) -> Sequence[str]:
        """Empty if there is nothing below the header."""
        first, *rest = head_lines(path)
        if self.names or not rest:
            return self.names
        header: list[str] = next(csv.reader([first], delimiter=self.separator))
        return header

    def _open(
        self, path: Path, width: int, labels: Sequence[str], dropped: Collection[int]
    ) -> pa_csv.CSVStreamingReader:
        """Columns as text, labelled by position: a header may repeat a name or leave it empty."""
        stream = open_stream(path)
        if dropped:
            remaining = _Lines(line for _, line in _numbered_lines(path, dropped))
            stream = pa.PythonFile(io.BufferedReader(remaining, BLOCK_BYTES), mode="r")
        return pa_csv.open_csv(
            stream,
            pa_csv.ReadOptions(
                column_names=[str(position) for position in range(width)],
                skip_rows=0 if self.names else 1,
                block_size=BLOCK_BYTES,
            ),
            pa_csv.ParseOptions(
                delimiter=self.separator,
                quote_char='"' if self._quoted else False,
                newlines_in_values=self._quoted,
            ),
            pa_csv.ConvertOptions(
                include_columns=labels, column_types=dict.fromkeys(labels, pa.binary())
            ),
        )

    @property
    def _quoted(self) -> bool:
        return self.separator in QUOTED_SEPARATORS

    def _unusable_lines(
        self, path: Path, width: int, positions: Sequence[int | None], bad: BadRows
    ) -> set[int]:
        """The lines that are not read: those with a stray quote, and, where bad rows are skipped,
        those with a wrong number of fields."""
        dropped: set[int] = set()
        if self._quoted and _has_quotes(path):

            def is_record(fields: Sequence[str]) -> int | None:
                return _last_position(fields, width, positions[:3])

            lines = _numbered_lines(path, ())
            for number, problem in stray_quotes(lines, self.separator, is_record):
                bad.add(partial(_line, path, number), problem)
                dropped.add(number)
        if bad.allowed:
            for numbers, fields in self._records(path, frozenset(dropped)):
                if len(fields) != width:
                    bad.add(partial(_line, path, numbers[0]), _width_problem(fields, width))
                    dropped.update(numbers)
        return dropped

    def _records(
        self, path: Path, dropped: Collection[int]
    ) -> Iterator[tuple[list[int], list[str]]]:
        """Each record below the header, after the numbers of its lines."""
        csv.field_size_limit(BLOCK_BYTES)
        numbers: list[int] = []

        def lines() -> Iterator[str]:
            for number, line in _numbered_lines(path, dropped):
                numbers.append(number)
                yield line

        reader = csv.reader(
            lines(),
            delimiter=self.separator,
            quoting=csv.QUOTE_MINIMAL if self._quoted else csv.QUOTE_NONE,
        )
        for fields in reader:
            if fields and (self.names or numbers[0] > 1):
                yield [*numbers], fields
            numbers.clear()

    def _locate(self, path: Path, dropped: Collection[int], first: int, record: int) -> str:
        numbers, _ = next(islice(self._records(path, dropped), first + record, None))
        return _line(path, numbers[0])

    def _malformed(self, path: Path, width: int, error: Exception) -> LogError:
        for numbers, fields in self._records(path, ()):
            if len(fields) != width:
                problem = _width_problem(fields, width)
                return LogError(f"{_line(path, numbers[0])}: {problem}")
        return LogError(f"{path}: cannot be read as lines of {width} fields ({one_line(error)})")


class _Lines(io.RawIOBase):
    """Lines as a stream of bytes."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines, self._rest = lines, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._rest:
            self._rest = next(self._lines, "").encode("latin-1")
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _numbered_lines(path: Path, dropped: Collection[int]) -> Iterator[NumberedLine]:
    """The lines, with their ends, after their numbers; as Latin-1, which fits any byte."""
    with open_binary(path) as file:
        text = io.TextIOWrapper(file, "latin-1", newline="")
        for number, line in enumerate(text, start=1):
            if number not in dropped:
                yield number, line


def _has_quotes(path: Path) -> bool:
    with open_binary(path) as file:
        return any(b'"' in chunk for chunk in iter(partial(file.read, 1 << 20), b""))


def _last_position(
    fields: Sequence[str], width: int, positions: Sequence[int | None]
) -> int | None:
    """The position of the time if these are the fields of a record; of the later id without one."""
    user, item, time = positions
    if user is None or item is None or len(fields) != width:
        return None
    if not (fields[user].strip() and fields[item].strip()):
        return None
    if time is None:
        return max(user, item)
    return time if _TIME.fullmatch(fields[time].strip('"')) else None


def _width_problem(fields: Sequence[str], width: int) -> str:
    return f"{len(fields)} fields where {width} are needed; correct or remove the line"


def _line(path: Path, number: int) -> str:
    return f"{path}, line {number:,}"


def _clicked_items(block: Block) -> Block:
    """One record for each item that ends with -1, without that."""
    shown = pc.split_pattern(pc.fill_null(block.items, b""), b" ")
    records, items = pc.list_parent_indices(shown), pc.list_flatten(shown)
    clicked = pc.ends_with(items, b"-1")
    chosen = block.take(records.filter(clicked).to_numpy())
    return chosen._replace(items=pc.binary_slice(items.filter(clicked), 0, -2))

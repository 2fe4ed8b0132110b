"""Log files with one JSON object a line."""

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from training.data.bad_rows import BadRows
from training.data.columns import BLOCK_BYTES, Block, Columns
from training.data.compression import READ_ERRORS, head_lines, open_binary, open_stream
from training.data.errors import LogError, one_line, unreadable_file

_BLOCK_RECORDS = 1 << 16
_HEAD_LINES = 100  # that are looked at for keys and types
_NUMERIC = (2, 4, 5, 6)  # the columns of a block whose numbers are quantities, not ids


class _JsonType(NamedTuple):
    """A type of value: its name, in arrow, and in Python; a key may also be absent or null."""

    name: str
    arrow: pa.DataType
    python: tuple[type, ...]

    def fits(self, value: Any) -> bool:
        return value is None or (isinstance(value, self.python) and not isinstance(value, bool))


_TEXT = _JsonType("string", pa.string(), (str,))
_INTEGER = _JsonType("whole number", pa.int64(), (int,))
_NUMBER = _JsonType("number", pa.float64(), (int, float))
_Types = Mapping[str, _JsonType]


@dataclass(frozen=True)
class JsonLines:
    """One JSON object a line, compressed or not; other keys are ignored.

    A value is text or a number, the same in all lines; the first lines decide. inside: the key of
    a list of events, which have the item, time and event; the other columns are their parent's. A
    line may be a Python literal, as in some published files; then reading takes longer.
    """

    columns: Columns
    inside: str | None = None

    def blocks(self, path: Path, bad: BadRows) -> Iterator[Block]:
        types = self._check_first_lines(path, bad)
        first = next(line for _, line in _lines(path))
        if bad.allowed or not _is_json(first):
            yield from self._parsed_in_python(path, types, bad)
            return
        record = 0
        try:
            with pa_json.open_json(
                open_stream(path),
                pa_json.ReadOptions(block_size=BLOCK_BYTES),
                pa_json.ParseOptions(
                    explicit_schema=self._schema(types), unexpected_field_behavior="ignore"
                ),
            ) as reader:
                for batch in reader:
                    yield self._block(path, batch, types, record)
                    record += len(batch)
        except pa.ArrowInvalid as error:
            raise self._malformed(path, types, error) from error
        except READ_ERRORS as error:
            raise unreadable_file(path, error) from error

    def _labels(self, types: _Types) -> list[str | None]:
        """The key of each column of a block, None for those that the file does not have."""
        candidates = ((n,) if isinstance(n, str) else n or () for n in self.columns.names)
        return [next((name for name in names if name in types), None) for names in candidates]

    def _schema(self, types: _Types) -> pa.Schema:
        if self.inside is None:
            return pa.schema((name, json_type.arrow) for name, json_type in types.items())
        user, *others = [label for label in self._labels(types) if label]
        event = pa.struct([(name, types[name].arrow) for name in others])
        return pa.schema([(user, types[user].arrow), (self.inside, pa.list_(event))])

    def _block(self, path: Path, batch: pa.RecordBatch, types: _Types, first: int) -> Block:
        user, *others = self._labels(types)
        locate = partial(self._locate, path, first)
        if self.inside is None:
            return Block(locate, batch[user], *(batch[n] if n else None for n in others))
        events = pc.list_flatten(batch[self.inside])
        parents = pc.list_parent_indices(batch[self.inside])
        columns = (pc.struct_field(events, name) if name else None for name in others)
        return Block(
            lambda record: locate(parents[record].as_py()), batch[user].take(parents), *columns
        )

    def _check_first_lines(self, path: Path, bad: BadRows) -> _Types:
        """The type of each key. Raises LogError if the first lines lack one."""
        head_lines(path)  # raises LogError for a file without lines
        rows: list[dict[str, Any]] = []
        for index, (number, line) in enumerate(islice(_lines(path), _HEAD_LINES)):
            record = _parse(line)
            if not isinstance(record, str):
                rows += self._events(record)
            elif index == 0 and not bad.allowed:
                raise LogError(f"{_line(path, number)}: {record}")
        keys = list(dict.fromkeys(key for row in rows for key in row))
        positions = self.columns.find(path, keys)
        return {
            keys[position]: _type_of([row.get(keys[position]) for row in rows], column in _NUMERIC)
            for column, position in enumerate(positions)
            if position is not None
        }

    def _events(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        """The record itself, or the events inside of it."""
        if self.inside is None:
            return [record]
        events = record.get(self.inside) or []
        return [{**record, **event} for event in events if isinstance(event, dict)]

    def _parsed_in_python(self, path: Path, types: _Types, bad: BadRows) -> Iterator[Block]:
        labels = self._labels(types)
        rows: list[dict[str, Any]] = []
        numbers: list[int] = []
        for number, line in _lines(path):
            record = _parse(line)
            problem = record if isinstance(record, str) else self._type_problem(record, types)
            if problem is not None:
                bad.add(partial(_line, path, number), problem)
                continue
            assert not isinstance(record, str)
            events = self._events(record)
            rows += events
            numbers += [number] * len(events)
            if len(rows) >= _BLOCK_RECORDS:
                yield _to_block(path, rows, numbers, labels, types)
                rows, numbers = [], []
        yield _to_block(path, rows, numbers, labels, types)

    def _locate(self, path: Path, first: int, record: int) -> str:
        number, _ = next(islice(_lines(path), first + record, None))
        return _line(path, number)

    def _type_problem(self, record: dict[str, Any], types: _Types) -> str | None:
        for event in self._events(record):
            for name, json_type in types.items():
                if not json_type.fits(event.get(name)):
                    return f"{name} is {event[name]!r:.200}; it must be a {json_type.name}"
        return None

    def _malformed(self, path: Path, types: _Types, error: Exception) -> LogError:
        for number, line in _lines(path):
            record = _parse(line)
            problem = record if isinstance(record, str) else self._type_problem(record, types)
            if problem is not None:
                return LogError(f"{_line(path, number)}: {problem}")
        return LogError(f"{path}: cannot be read as lines of JSON ({one_line(error)})")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with open_binary(path) as file:
        yield from ((n, line) for n, line in enumerate(file, start=1) if line.strip())


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _parse(line: bytes) -> dict[str, Any] | str:
    """The object on a line; or why it cannot be read."""
    try:
        record = json.loads(line)
    except ValueError as error:
        record = _parse_literal(line)
        if record is None:
            return f"not JSON ({one_line(error)}); correct or remove the line"
    return record if isinstance(record, dict) else "not a JSON object; correct or remove the line"


def _parse_literal(line: bytes) -> dict[str, Any] | None:
    if not line.startswith((b"{'", b"{u'", b'{u"')):
        return None
    try:
        record = ast.literal_eval(line.decode().strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _type_of(values: list[Any], is_quantity: bool) -> _JsonType:
    """Of the first value; numbers are whole ones in ids only."""
    first = next((value for value in values if value is not None), None)
    if isinstance(first, int | float) and not isinstance(first, bool):
        return _NUMBER if is_quantity else _INTEGER
    return _TEXT


def _to_block(
    path: Path,
    rows: list[dict[str, Any]],
    numbers: list[int],
    labels: list[str | None],
    types: _Types,
) -> Block:
    columns = (
        pa.array([row.get(name) for row in rows], types[name].arrow) if name else None
        for name in labels
    )
    return Block(lambda record: _line(path, numbers[record]), *columns)


def _line(path: Path, number: int) -> str:
    return f"{path}, line {number:,}"

"""Log files with one JSON object a line."""

import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.json as pa_json

from training.data.columns import BLOCK_BYTES, Block, Columns
from training.data.compression import head_lines, open_binary, open_stream
from training.data.errors import LogError, one_line, unreadable_file


class _JsonType(NamedTuple):
    """A type of value: its name, in arrow, and in Python; a key may also be absent or null."""

    name: str
    arrow: pa.DataType
    python: tuple[type, ...]


_TEXT = _JsonType("string", pa.string(), (str, type(None)))
_NUMBER = _JsonType("number", pa.float64(), (int, float, type(None)))


@dataclass(frozen=True)
class JsonLines:
    """One JSON object a line, gzipped or not; keys other than the columns are ignored."""

    columns: Columns

    def blocks(self, path: Path) -> Iterator[Block]:
        self._check_first_line(path)
        schema = pa.schema((name, json_type.arrow) for name, json_type in self._types())
        first = 0
        try:
            with pa_json.open_json(
                open_stream(path),
                pa_json.ReadOptions(block_size=BLOCK_BYTES),
                pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            ) as reader:
                for batch in reader:
                    columns = [batch[name] if name else None for name in astuple(self.columns)]
                    yield Block(partial(self._locate, path, first), *columns)
                    first += len(batch)
        except pa.ArrowInvalid as error:
            raise self._malformed(path, error) from error
        except OSError as error:
            raise unreadable_file(path, error) from error

    def _types(self) -> Iterator[tuple[str, _JsonType]]:
        types = (_TEXT, _TEXT, _NUMBER, _TEXT, _NUMBER)
        return ((n, t) for n, t in zip(astuple(self.columns), types, strict=True) if n)

    def _lines(self, path: Path) -> Iterator[tuple[int, bytes]]:
        with open_binary(path) as file:
            yield from ((n, line) for n, line in enumerate(file, start=1) if line.strip())

    def _check_first_line(self, path: Path) -> None:
        head_lines(path)  # raises LogError for a file without lines
        number, line = next(self._lines(path))
        if problem := self._problem(line):
            raise LogError(f"{path}, line {number:,}: {problem}")
        self.columns.find(path, list(json.loads(line)))

    def _locate(self, path: Path, first: int, record: int) -> str:
        number, _ = next(islice(self._lines(path), first + record, None))
        return f"{path}, line {number:,}"

    def _problem(self, line: bytes) -> str | None:
        """Why the line cannot be read; None if it can."""
        try:
            record = json.loads(line)
        except ValueError as error:
            return f"not JSON ({one_line(error)}); correct or remove the line"
        if not isinstance(record, dict):
            return "not a JSON object; correct or remove the line"
        for name, json_type in self._types():
            if not isinstance(record.get(name), json_type.python):
                return f"{name} is {record[name]!r}; it must be a {json_type.name}"
        return None

    def _malformed(self, path: Path, error: Exception) -> LogError:
        for number, line in self._lines(path):
            if problem := self._problem(line):
                return LogError(f"{path}, line {number:,}: {problem}")
        return LogError(f"{path}: cannot be read as lines of JSON ({one_line(error)})")

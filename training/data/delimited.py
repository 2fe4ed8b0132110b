"""Log files of delimited fields: comma, tab or colon; with a header line or without."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from training.data.columns import BLOCK_BYTES, Block, Columns
from training.data.compression import head_lines, open_binary, open_stream
from training.data.errors import LogError, one_line, unreadable_file


@dataclass(frozen=True)
class Delimited:
    """Delimited lines, gzipped or not; comma-separated fields may be quoted.

    names: the columns of a file that has no header line.
    """

    columns: Columns
    separator: str = ","
    names: tuple[str, ...] = ()

    def blocks(self, path: Path) -> Iterator[Block]:
        names = self._names(path)
        labels = [None if p is None else str(p) for p in self.columns.find(path, names)]
        first = 0
        try:
            with self._open(path, len(names), [label for label in labels if label]) as reader:
                for batch in reader:
                    columns = [None if label is None else batch[label] for label in labels]
                    yield Block(partial(self._locate, path, first), *columns)
                    first += len(batch)
        except pa.ArrowInvalid as error:
            raise self._malformed(path, len(names), error) from error
        except OSError as error:
            raise unreadable_file(path, error) from error

    def _names(self, path: Path) -> Sequence[str]:
        first, *rest = head_lines(path)
        if self.names:
            return self.names
        if not rest:
            raise LogError(f"{path}: one line only; a header and interactions below it are needed")
        header: list[str] = next(csv.reader([first], delimiter=self.separator))
        return header

    def _open(self, path: Path, width: int, labels: Sequence[str]) -> pa_csv.CSVStreamingReader:
        """Columns as text, labelled by position: a header may repeat a name or leave it empty."""
        return pa_csv.open_csv(
            open_stream(path),
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
        return self.separator == ","

    def _records(self, path: Path) -> Iterator[tuple[int, list[str]]]:
        """Each record below the header, after the number of the line on which it starts."""
        csv.field_size_limit(BLOCK_BYTES)
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

    def _locate(self, path: Path, first: int, record: int) -> str:
        line, _ = next(islice(self._records(path), first + record, None))
        return f"{path}, line {line:,}"

    def _malformed(self, path: Path, width: int, error: Exception) -> LogError:
        for line, fields in self._records(path):
            if len(fields) != width:
                return LogError(
                    f"{path}, line {line:,}: {len(fields)} fields where {width} are needed; "
                    "correct or remove the line"
                )
        return LogError(f"{path}: cannot be read as lines of {width} fields ({one_line(error)})")

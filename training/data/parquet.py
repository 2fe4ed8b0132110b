"""Log files of Parquet."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from training.data.bad_rows import BadRows
from training.data.columns import Block, Columns
from training.data.errors import PARQUET_ERRORS, invalid_parquet
from training.data.paths import to_open

_BLOCK_ROWS = 1 << 18


@dataclass(frozen=True)
class Parquet:
    """A Parquet file."""

    columns: Columns

    def blocks(self, path: Path, bad: BadRows) -> Iterator[Block]:
        """No row is bad before its values are read."""
        try:
            with pq.ParquetFile(to_open(path)) as parquet:
                names = parquet.schema_arrow.names
                positions = self.columns.find(path, names)
                labels = [None if position is None else names[position] for position in positions]
                first = 1
                for batch in parquet.iter_batches(
                    _BLOCK_ROWS, columns=list(dict.fromkeys(filter(None, labels)))
                ):
                    columns = [None if label is None else batch[label] for label in labels]
                    yield Block(partial(self._locate, path, first), *columns)
                    first += len(batch)
        except PARQUET_ERRORS as error:
            raise invalid_parquet(path, error) from error

    def _locate(self, path: Path, first: int, record: int) -> str:
        return f"{path}, row {first + record:,}"

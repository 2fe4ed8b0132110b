"""Log files of Parquet: one file, or a folder of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from training.data.columns import Block, Columns
from training.data.errors import PARQUET_ERRORS, LogError, invalid_parquet

_BLOCK_ROWS = 1 << 18


@dataclass(frozen=True)
class Parquet:
    """A Parquet file, or all Parquet files below a folder, such as date partitions.

    Names that begin with a dot or an underscore are skipped: they are unfinished, or no data.
    """

    columns: Columns

    def blocks(self, path: Path) -> Iterator[Block]:
        for file in self._files(path):
            yield from self._file_blocks(file)

    def _files(self, path: Path) -> list[Path]:
        if not path.is_dir():
            return [path]
        relative = (file.relative_to(path) for file in path.rglob("*.parquet") if file.is_file())
        files = [path / f for f in sorted(relative) if not any(p[0] in "._" for p in f.parts)]
        if not files:
            raise LogError(
                f"{path}: a folder without a .parquet file; name a file, or another folder"
            )
        return files

    def _file_blocks(self, file: Path) -> Iterator[Block]:
        try:
            with pq.ParquetFile(file) as parquet:
                names = parquet.schema_arrow.names
                positions = self.columns.find(file, names)
                labels = [None if position is None else names[position] for position in positions]
                first = 1
                for batch in parquet.iter_batches(
                    _BLOCK_ROWS, columns=[label for label in labels if label]
                ):
                    columns = [None if label is None else batch[label] for label in labels]
                    yield Block(partial(self._locate, file, first), *columns)
                    first += len(batch)
        except PARQUET_ERRORS as error:
            raise invalid_parquet(file, error) from error

    def _locate(self, file: Path, first: int, record: int) -> str:
        return f"{file}, row {first + record:,}"

"""What every log format gives: blocks of raw columns, and where in the file a record is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa

from training.data.errors import require_column

BLOCK_BYTES = 8 << 20  # the longest line that can be read; several blocks are in memory at once


class Block(NamedTuple):
    """Consecutive records of one file, as raw columns; text is binary or string.

    locate(i): the file and line of record i of the block, in words; may read the file again.
    events, weights: None if the file has no such column.
    """

    locate: Callable[[int], str]
    users: pa.Array
    items: pa.Array
    times: pa.Array
    events: pa.Array | None
    weights: pa.Array | None


class Format(Protocol):
    """A log format: from a path to blocks of raw columns. Checks no value."""

    def blocks(self, path: Path) -> Iterator[Block]:
        """Raises LogError if the file is damaged or lacks a column."""
        ...


@dataclass(frozen=True)
class Columns:
    """The column names of a format. A file may lack the event and weight columns."""

    user: str
    item: str
    time: str
    event: str | None = None
    weight: str | None = None

    def find(self, path: Path, names: Sequence[str]) -> list[int | None]:
        """The positions of user, item, time, event and weight among the columns of a file.

        A name may carry a type, as RecBole's `user_id:token`. Raises LogError if user, item or
        time is missing.
        """
        untyped = [name.partition(":")[0].strip() for name in names]
        for required in (self.user, self.item, self.time):
            require_column(path, untyped, required)
        return [untyped.index(name) if name in untyped else None for name in astuple(self)]

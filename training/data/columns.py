"""What every log format gives: blocks of raw columns, and where in the file a record is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.data.bad_rows import BadRows
from training.data.errors import LogError, require_column

BLOCK_BYTES = 8 << 20  # the longest line that can be read; several blocks are in memory at once

ROLES = ("user", "item", "time", "event", "weight")
FILE_ORDER = "#"  # the name of the time column of a log without times: the order of its rows

Name = str | tuple[str, ...]  # of a column; several if files of the format differ in it


class Block(NamedTuple):
    """Consecutive records of one file, as raw columns; text is binary or string.

    locate(i): the file and line of record i of the block, in words; may read the file again.
    times: None if the file's order is the time. events, weights: None if the file has no such
    column; so are offsets_ms, which are added to the times, and clicked: a record is an interaction
    only if that is 1.
    """

    locate: Callable[[int], str]
    users: pa.Array
    items: pa.Array
    times: pa.Array | None
    events: pa.Array | None
    weights: pa.Array | None
    offsets_ms: pa.Array | None = None
    clicked: pa.Array | None = None

    def take(self, records: NDArray[np.int64]) -> "Block":
        """The block of these records."""
        locate, *columns = self
        indices = pa.array(records)
        taken = (None if column is None else column.take(indices) for column in columns)
        return Block(lambda record: locate(int(records[record])), *taken)


class Format(Protocol):
    """A log format: from the path of a file to blocks of raw columns. Checks no value."""

    @property
    def columns(self) -> "Columns": ...

    def blocks(self, path: Path, bad: BadRows) -> Iterator[Block]:
        """bad: is given the lines that cannot be read. Raises LogError if the file is damaged or
        lacks a column, or if more lines are bad than may be."""
        ...


@dataclass(frozen=True)
class Columns:
    """The column names of a format. A file may lack the columns other than user, item and time.

    time_unit: s, ms, us or ns, the unit of numbers as times; None keeps them as they are.
    time_pattern: of strptime, for times that are not ISO 8601. given: roles that the user has
    named; the file must have these columns.
    """

    user: Name
    item: Name
    time: Name
    event: Name | None = None
    weight: Name | None = None
    offset_ms: Name | None = None
    clicked: Name | None = None
    time_unit: str | None = None
    time_pattern: str | None = None
    given: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[Name | None, ...]:
        """The names of a block's columns, in its order; None for those that no file has."""
        time = None if self.time == FILE_ORDER else self.time
        optional = (self.event, self.weight, self.offset_ms, self.clicked)
        return (self.user, self.item, time, *optional)

    def renamed(self, given: Mapping[str, str]) -> Self:
        """With other names for some roles. The times of a column named are in no known unit."""
        changes: dict[str, Any] = {**given, "given": tuple(given)}
        if "time" in given and given["time"] != self.time:
            changes |= {"time_unit": None, "time_pattern": None, "offset_ms": None}
        if "event" in given and given["event"] != self.event:
            changes |= {"clicked": None}
        return replace(self, **changes)

    def with_unit(self, unit: str) -> Self:
        """With times that are numbers of this unit."""
        return replace(self, time_unit=unit)

    def find(self, path: Path, names: Sequence[str]) -> list[int | None]:
        """The positions of a block's columns among the columns of a file; None where it has none.

        A name may carry a type, as RecBole's `user_id:token`. Raises LogError if user, item or
        time is missing, a column that was named by the user, or one is there twice.
        """
        untyped = [name.partition(":")[0].strip() for name in names]
        needed = {"user", "item", "time", *self.given}
        positions: list[int | None] = []
        for role, name in zip((*ROLES, None, None), self.names, strict=True):
            found = None if name is None else self._find(names, untyped, name)
            if found is None and name is not None and role in needed:
                shown = name if isinstance(name, str) else name[0]
                hint = f"add or rename it, or name yours with --columns {role}=NAME"
                require_column(path, untyped, shown, hint)
            if found is not None and list(names).count(names[found]) > 1:
                raise LogError(f"{path}: two columns are named {names[found]!r}; rename one")
            positions.append(found)
        return positions

    def missing(self, names: Sequence[str]) -> bool:
        """Whether a file with these columns lacks user, item or time."""
        untyped = [name.partition(":")[0].strip() for name in names]
        required = (name for name in self.names[:3] if name is not None)
        return any(self._find(names, untyped, name) is None for name in required)

    @staticmethod
    def _find(names: Sequence[str], untyped: Sequence[str], name: Name) -> int | None:
        for wanted in (name,) if isinstance(name, str) else name:
            for candidates in (names, untyped):
                if wanted in candidates:
                    return candidates.index(wanted)
        return None

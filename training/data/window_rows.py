"""The rows of a base log and of the events after it, of which a window is made: in memory, or in
DuckDB where they would not fit there. Both give the same."""

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.data.array_store import SpillFolder
from training.data.database import Database
from training.data.event_files import FORGET, SCHEMA, is_in
from training.data.time_units import typical

Source: TypeAlias = Literal["base", "events"]
SOURCES: tuple[Source, ...] = ("base", "events")
_BATCH = 1 << 20  # rows, as many as in a row group of Parquet
_PARTITION_BYTES = 4000  # of the memory limit, for each row of a partition


class Partition(NamedTuple):
    """All rows of some users, in order of arrival; the first base_size are of the base log."""

    rows: pa.Table
    base_size: int

    @property
    def is_event(self) -> NDArray[np.bool_]:
        """(n,): rows of the event files."""
        return np.arange(len(self.rows)) >= self.base_size

    @property
    def tombstones(self) -> NDArray[np.bool_]:
        """(n,): rows of the event files that forget their user."""
        return is_in(self.rows["event"], [FORGET]) & self.is_event


class WindowRows(Protocol):
    """First those of the base log are added, then those of the event files."""

    def add(self, source: Source, rows: pa.Table) -> None:
        """Rows of SCHEMA, in order of arrival."""
        ...

    def size(self, source: Source) -> int: ...

    def typical_time(self, source: Source) -> float:
        """The time in the middle, of at least one row."""
        ...

    def distinct(self, column: str, source: Source) -> pa.Array:
        """The values of a column that are not null, each once."""
        ...

    def late_times(self, until: float) -> NDArray[np.float64]:
        """The times of events that are not before `until`."""
        ...

    def tombstones(self) -> int:
        """How many rows of the event files forget their user."""
        ...

    def event_types(self) -> list[str]:
        """Of all rows but tombstones, each once."""
        ...

    def partitions(self) -> Iterator[Partition]:
        """Together all rows; the rows of a user are in one."""
        ...

    def keep(self, partition: Partition, kept: NDArray[np.bool_]) -> None:
        """Of each partition, the rows for the window."""
        ...

    def since(self, first: float, columns: list[str]) -> pa.Table:
        """The rows kept from this time on, in order of time, then of arrival."""
        ...


class MemoryWindow:
    def __init__(self) -> None:
        self._rows = {"base": [SCHEMA.empty_table()], "events": [SCHEMA.empty_table()]}
        self._kept = SCHEMA.empty_table(), np.empty(0, dtype=np.int64)

    def add(self, source: Source, rows: pa.Table) -> None:
        self._rows[source].append(rows)

    def size(self, source: Source) -> int:
        return sum(map(len, self._rows[source]))

    def _column(self, name: str, source: Source) -> pa.ChunkedArray:
        return pa.concat_tables(self._rows[source])[name]

    def typical_time(self, source: Source) -> float:
        return typical(self._column("timestamp", source).to_numpy())

    def distinct(self, column: str, source: Source) -> pa.Array:
        return pc.unique(self._column(column, source)).drop_null()

    def late_times(self, until: float) -> NDArray[np.float64]:
        times: NDArray[np.float64] = self._column("timestamp", "events").to_numpy()
        return times[times >= until]

    def tombstones(self) -> int:
        return int(is_in(self._column("event", "events"), [FORGET]).sum())

    def event_types(self) -> list[str]:
        base, events = (self.distinct("event", name).to_pylist() for name in SOURCES)
        return list({*base, *events} - ({FORGET} - {*base}))

    def partitions(self) -> Iterator[Partition]:
        tables = [*self._rows["base"], *self._rows["events"]]
        yield Partition(pa.concat_tables(tables).combine_chunks(), self.size("base"))

    def keep(self, partition: Partition, kept: NDArray[np.bool_]) -> None:
        self._kept = partition.rows, np.flatnonzero(kept)

    def since(self, first: float, columns: list[str]) -> pa.Table:
        rows, indices = self._kept
        times = rows["timestamp"].to_numpy()
        indices = indices[times[indices] >= first]
        order = indices[np.argsort(times[indices], kind="stable")]
        return rows.select(columns).take(pa.array(order))


class DatabaseWindow:
    def __init__(self, folder: SpillFolder, memory: int) -> None:
        """memory: limit in bytes. Raises LogError if DuckDB is not installed."""
        self._folder, self._partition_rows = folder, max(memory // _PARTITION_BYTES, 1)
        self._database = Database(folder, memory)
        self._sizes = {"base": 0, "events": 0}
        columns = ", ".join(
            f"{field.name} {'DOUBLE' if pa.types.is_floating(field.type) else 'VARCHAR'}"
            for field in SCHEMA
        )
        for table in ("arrived", "kept"):
            self._database.run(f"CREATE TABLE {table} ({columns}, position BIGINT)")

    def add(self, source: Source, rows: pa.Table) -> None:
        start = sum(self._sizes.values())
        positions = pa.array(np.arange(start, start + len(rows)))
        self._database.insert("arrived", rows.append_column("position", positions))
        self._sizes[source] += len(rows)

    def size(self, source: Source) -> int:
        return self._sizes[source]

    def _of(self, source: Source) -> str:
        return f"position {'<' if source == 'base' else '>='} {self._sizes['base']}"

    def typical_time(self, source: Source) -> float:
        found = self._database.query(
            f"SELECT timestamp FROM arrived WHERE {self._of(source)} "
            f"ORDER BY timestamp LIMIT 1 OFFSET {self.size(source) // 2}"
        )
        return float(found["timestamp"][0].as_py())

    def distinct(self, column: str, source: Source) -> pa.Array:
        found = self._database.query(
            f"SELECT DISTINCT {column} FROM arrived "
            f"WHERE {self._of(source)} AND {column} IS NOT NULL"
        )
        return found[column].combine_chunks()

    def late_times(self, until: float) -> NDArray[np.float64]:
        found = self._database.query(
            f"SELECT timestamp FROM arrived WHERE {self._of('events')} AND timestamp >= {until!r}"
        )
        times: NDArray[np.float64] = found["timestamp"].to_numpy()
        return times

    def tombstones(self) -> int:
        found = self._database.query(f"SELECT count(*) FROM arrived WHERE {self._forgets}")
        return int(found[0][0].as_py())

    def event_types(self) -> list[str]:
        found = self._database.query(
            f"SELECT DISTINCT event FROM arrived WHERE event IS NOT NULL AND NOT ({self._forgets})"
        )
        names: list[str] = found["event"].to_pylist()
        return names

    @property
    def _forgets(self) -> str:
        return f"{self._of('events')} AND event IS NOT DISTINCT FROM '{FORGET}'"

    def partitions(self) -> Iterator[Partition]:
        count = sum(self._sizes.values()) // self._partition_rows + 1
        for number in range(count):
            rows = self._database.query(
                f"SELECT * FROM arrived WHERE hash(user_id) % {count} = {number} ORDER BY position"
            ).combine_chunks()
            base_size = pc.sum(pc.less(rows["position"], self._sizes["base"])).as_py()
            yield Partition(rows, base_size or 0)
        self._database.run("DROP TABLE arrived")

    def keep(self, partition: Partition, kept: NDArray[np.bool_]) -> None:
        self._database.insert("kept", partition.rows.filter(pa.array(kept)))

    def since(self, first: float, columns: list[str]) -> pa.Table:
        """In a file of the folder, which is mapped."""
        schema = pa.schema([SCHEMA.field(name) for name in columns])
        path = self._folder.path / "window.arrow"
        batches = self._database.stream(
            f"SELECT {', '.join(columns)} FROM kept WHERE timestamp >= {_number(first)} "
            "ORDER BY timestamp, position",
            _BATCH,
        )
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch.cast(schema))
        self._database.close()
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _number(value: float) -> str:
    return f"'{value}'::DOUBLE"  # also infinity

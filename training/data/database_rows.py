"""Rows in DuckDB, for logs larger than memory: the same Interactions, in files.

DuckDB gives each id its code, the position of the id in sorted order, and joins the codes to the
rows; both spill to disk. As the codes of users are in the order of the result, a range of them is a
partition that is sorted in memory by itself, and the partitions follow one another.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.data.array_store import BLOCK, ArrayWriter, SpillFolder
from training.data.database import Database
from training.data.event_weights import EventWeights
from training.data.interactions import Interactions, offsets_of, order_of
from training.data.tie_order import id_hashes, tie_keys
from training.data.undone import codes_of, undone

_SORTED_BYTES = 1000  # of the memory limit, for each row of a partition


class DatabaseRows:
    """A row is its ids as text, time, and, where the log has event types, its position, whether it
    takes another back, and the code of its type if types have weights: of repeated rows the first
    stays."""

    def __init__(self, folder: SpillFolder, memory: int) -> None:
        """memory: limit in bytes. Raises LogError if DuckDB is not installed."""
        self._folder, self._partition_rows = folder, max(memory // _SORTED_BYTES, 1)
        self._database = Database(folder, memory)
        self._database.run(
            "CREATE TABLE rows "
            "(user_id VARCHAR, item_id VARCHAR, time DOUBLE, event INTEGER, undoes BOOLEAN, "
            "position BIGINT)"
        )
        self._types: dict[str, int] = {}
        self._rows = 0
        self._has_undoing = False

    def add(
        self,
        users: pa.DictionaryArray,
        items: pa.DictionaryArray,
        events: pa.DictionaryArray | None,
        times: NDArray[np.float64],
        kept: NDArray[np.bool_],
        undoes: NDArray[np.bool_] | None = None,
    ) -> None:
        mask, size = pa.array(kept), int(np.count_nonzero(kept))
        types, undoing = pa.nulls(size, pa.int32()), pa.nulls(size, pa.bool_())
        positions = pa.nulls(size, pa.int64())
        if events is not None:
            types = self._codes_of(events).filter(mask)
        if undoes is not None:
            undoing = pa.array(undoes[kept])
            self._has_undoing |= bool(undoes[kept].any())
        if events is not None or undoes is not None:
            positions = pa.array(np.arange(self._rows, self._rows + size))
        columns = [_text(users).filter(mask), _text(items).filter(mask), times[kept]]
        names = ["user_id", "item_id", "time", "event", "undoes", "position"]
        self._database.insert("rows", pa.table([*columns, types, undoing, positions], names))
        self._rows += size

    def _codes_of(self, events: pa.DictionaryArray) -> pa.Array:
        names = events.dictionary.cast(pa.string()).to_pylist()
        codes = [self._types.setdefault(name, len(self._types)) for name in names]
        return pa.array(codes, pa.int32()).take(events.indices)

    def __len__(self) -> int:
        return self._rows

    def to_interactions(self, weights: Mapping[str, float] | None) -> Interactions:
        if self._has_undoing:
            self._drop_undone()
        if not self._rows:
            return self._nothing(weights)
        user_ids, counts = self._encode("user_id")
        item_ids, _ = self._encode("item_id")
        self._join()
        hashes = _hashes_of(user_ids), _hashes_of(item_ids)
        kinds = [np.int32, np.float64, *([] if weights is None else [np.int32])]
        writers: list[ArrayWriter[Any]] = [self._folder.writer(kind) for kind in kinds]
        sizes = np.zeros(len(user_ids), dtype=np.int64)
        for first, last in self._partitions(counts):
            users, *columns = self._read(first, last, weights is not None)
            items, times, *codes = columns
            ties = tie_keys(hashes[0][users], hashes[1][items])
            order = order_of(users, items, times, ties, self._events(codes, weights))
            sizes[first:last] = np.bincount(users[order] - first, minlength=last - first)
            for writer, values in zip(writers, columns, strict=True):
                writer.append(values[order])
        self._database.close()
        items, times, *codes = (writer.finish() for writer in writers)
        return Interactions(
            items,
            times,
            offsets_of(sizes),
            user_ids.to_numpy(),
            item_ids.to_numpy(),
            self._rows - len(items),
            self._events(codes, weights),
            self._folder,
        )

    def _nothing(self, weights: Mapping[str, float] | None) -> Interactions:
        self._database.close()
        no_codes, no_ids = np.empty(0, dtype=np.int32), np.empty(0, dtype=object)
        events = self._events([no_codes], weights)
        return Interactions.from_rows(no_codes, no_codes, np.empty(0), no_ids, no_ids, events)

    def _events(
        self, codes: Sequence[NDArray[np.int32]], weights: Mapping[str, float] | None
    ) -> EventWeights | None:
        if weights is None:
            return None
        return EventWeights.of(codes[0], np.array([*self._types], dtype=object), weights)

    def _drop_undone(self) -> None:
        """Remove the rows that take another back, and those that are taken back."""
        database = self._database
        database.run(
            "CREATE TABLE affected AS SELECT user_id, item_id, time, undoes, position FROM rows "
            "SEMI JOIN (FROM rows WHERE undoes) undoing USING (user_id, item_id)"
        )
        database.run("CREATE TABLE gone (position BIGINT)")
        size = database.query("SELECT count(*) FROM affected")[0][0].as_py()
        parts = size // self._partition_rows + 1
        for number in range(parts):
            users, items, times, undoes, positions = database.query(
                f"SELECT * FROM affected WHERE hash(user_id) % {parts} = {number}"
            ).columns
            mask = undone(codes_of(users), codes_of(items), times.to_numpy(), undoes.to_numpy())
            database.insert("gone", pa.table([positions.filter(pa.array(mask))], ["position"]))
            self._rows -= int(np.count_nonzero(mask))
        database.run("DELETE FROM rows WHERE position IN (SELECT position FROM gone)")

    def _encode(self, column: str) -> tuple[pa.ChunkedArray, NDArray[np.int64]]:
        """The ids in rising order of their UTF-8, and how many rows each has; a table of their
        codes."""
        found = self._database.query(f"SELECT {column}, count(*) FROM rows GROUP BY {column}")
        found = found.take(pc.sort_indices(found[column]))
        ids, counts = found.columns
        self._database.run(f"CREATE TABLE {column}s (id VARCHAR, code INTEGER)")
        codes = pa.array(np.arange(len(ids), dtype=np.int32))
        self._database.insert(f"{column}s", pa.table([ids, codes], ["id", "code"]))
        return ids, counts.to_numpy()

    def _join(self) -> None:
        self._database.run(
            "CREATE TABLE coded AS SELECT users.code AS user, items.code AS item, time, event, "
            "position FROM rows JOIN user_ids users ON users.id = rows.user_id "
            "JOIN item_ids items ON items.id = rows.item_id"
        )
        self._database.run("DROP TABLE rows")

    def _partitions(self, counts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Ranges of users that together have about as many rows as are sorted at once."""
        number = np.cumsum(counts) // self._partition_rows
        starts = np.flatnonzero(np.diff(number, prepend=-1)).tolist()
        yield from zip(starts, [*starts[1:], len(counts)], strict=True)

    def _read(self, first: int, last: int, weighted: bool) -> tuple[NDArray[Any], ...]:
        """Users, items and times; if weighted event types, too, and in order of the file."""
        types, order = (", event", "ORDER BY position") if weighted else ("", "")
        rows = self._database.query(
            f"SELECT user, item, time{types} FROM coded "
            f"WHERE user >= {first} AND user < {last} {order}"
        )
        return tuple(column.to_numpy() for column in rows.columns)


def _text(ids: pa.DictionaryArray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(ids.indices, ids.dictionary.cast(pa.string()))


def _hashes_of(ids: pa.ChunkedArray) -> NDArray[np.uint64]:
    starts = range(0, len(ids), BLOCK)
    return np.concatenate([id_hashes(ids.slice(start, BLOCK).to_numpy()) for start in starts])

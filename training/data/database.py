"""DuckDB: the engine for what does not fit in memory. It is an extra, loaded on first use."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from training.data.array_store import SpillFolder
from training.data.errors import LogError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Of the memory for a log. The rest is that of Python, its libraries, and the block that is at work.
_SHARE = 0.4
_NOT_INSTALLED = (
    "log_engine duckdb: DuckDB is not installed; install it with: pip install 're4[large-logs]', "
    "or read the log with --log-engine memory"
)


def is_installed() -> bool:
    try:
        import duckdb  # noqa: F401
    except ImportError:
        return False
    return True


class Database:
    """Tables in a file of the folder; what does not fit in memory is spilled beside it."""

    def __init__(self, folder: SpillFolder, memory: int) -> None:
        """memory: for the log, in bytes. Raises LogError if DuckDB is not installed."""
        try:
            import duckdb
        except ImportError:
            raise LogError(_NOT_INSTALLED) from None
        self._file = folder.path / "log.duckdb"
        self._connection: DuckDBPyConnection = duckdb.connect(
            str(self._file),
            config={
                "memory_limit": f"{int(memory * _SHARE) >> 20}MiB",
                "temp_directory": str(folder.path / "duckdb"),
                # Where the order of rows matters, a column says it.
                "preserve_insertion_order": "false",
            },
        )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raises LogError if memory or disk are too small."""
        import duckdb

        try:
            yield
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            reason = " ".join(str(error).split())[:200]
            raise LogError(
                f"log_engine duckdb: {reason}; raise --memory-limit, or name a folder with more "
                "space as --spill-directory"
            ) from error

    def run(self, sql: str) -> None:
        with self.errors():
            self._connection.execute(sql)

    def insert(self, table: str, rows: pa.Table) -> None:
        """Append the rows, whose columns are those of the table."""
        self._connection.register("block", rows)
        self.run(f"INSERT INTO {table} SELECT * FROM block")
        self._connection.unregister("block")

    def query(self, sql: str) -> pa.Table:
        """The result, in memory."""
        with self.errors():
            return self._connection.sql(sql).to_arrow_table()

    def stream(self, sql: str, rows: int) -> Iterator[pa.RecordBatch]:
        """The result, in batches of so many rows."""
        with self.errors(), self._connection.sql(sql).to_arrow_reader(rows) as reader:
            yield from reader

    def close(self) -> None:
        """Remove the tables."""
        self._connection.close()
        self._file.unlink(missing_ok=True)

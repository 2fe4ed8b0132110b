"""Calls of Milvus, each with a time limit, and every failure as one error.

Only this file imports pymilvus, which is in the extra `milvus`, and only when it first connects.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.ann.engine_names import check_uri, is_local
from index.ann.spec import MilvusSpec
from index.retrieval.search import SearchUnavailableError

ROW, VECTOR, CATEGORY = "row", "vector", "category"  # fields of a collection
SEARCH_TIMEOUT_S = 10.0  # unless the caller has less time
_ADMIN_TIMEOUT_S = 60.0
_BUILD_TIMEOUT_S = 6 * 3600.0
_NOT_LOADED = 101  # Milvus's code
_ROWS_PER_INSERT = 5000  # some megabytes

# Rows (M,) and their scores (M,), best first, for one vector.
Neighbours = tuple[NDArray[np.int64], NDArray[np.float32]]


class MilvusClient:
    """Connects at the first call. Any number of threads may call.

    Every method raises SearchUnavailableError.
    """

    def __init__(self, uri: str, timeout_s: float = SEARCH_TIMEOUT_S) -> None:
        """timeout_s: of a search. Raises ValueError if the URI cannot be one."""
        check_uri(uri)
        self._uri = uri
        self._timeout_s = timeout_s
        self._connected: Any = None
        self._lock = Lock()

    def search(
        self, spec: MilvusSpec, vectors: NDArray[np.float32], limit: int, expression: str
    ) -> list[Neighbours]:
        """The best rows for each of the vectors (M, D), in one call."""
        parameters = dict(spec.search)
        for name in ("ef", "search_list"):  # Milvus refuses less than the limit
            if name in parameters:
                parameters[name] = max(parameters[name], limit)
        asked = {
            "data": list(vectors),
            "anns_field": VECTOR,
            "limit": limit,
            "filter": expression,
            "output_fields": [ROW],
            "search_params": {"metric_type": "IP", "params": parameters},
            "timeout": self._timeout_s,
        }
        try:
            found = self._call("search", spec.collection, **asked)
        except SearchUnavailableError as error:
            if getattr(error.__cause__, "code", None) != _NOT_LOADED:
                raise
            # As after a restart of milvus-lite.
            self._call("load_collection", spec.collection, timeout=self._timeout_s)
            found = self._call("search", spec.collection, **asked)
        return [
            (np.asarray(hits.ids, np.int64), np.asarray(hits.distances, np.float32))
            for hits in found
        ]

    def count(self, collection: str) -> int | None:
        """Number of rows of a collection that can be searched; None if there is none."""
        if not self._call("has_collection", collection, timeout=_ADMIN_TIMEOUT_S):
            return None
        self._call("load_collection", collection, timeout=_BUILD_TIMEOUT_S)
        [row] = self._call(
            "query",
            collection,
            filter="",
            output_fields=["count(*)"],
            consistency_level="Strong",
            timeout=_ADMIN_TIMEOUT_S,
        )
        return int(row["count(*)"])

    def create(
        self, spec: MilvusSpec, vectors: NDArray[np.float32], categories: NDArray[np.int32]
    ) -> None:
        """A loaded collection with the rows 1..N of vectors and categories (N + 1), in place of
        any of its name."""
        self.drop(spec.collection)
        self._connection()
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(ROW, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=vectors.shape[1])
        schema.add_field(CATEGORY, DataType.INT32)
        self._call("create_collection", spec.collection, schema=schema, timeout=_ADMIN_TIMEOUT_S)
        for start in range(1, len(vectors), _ROWS_PER_INSERT):
            rows = range(start, min(start + _ROWS_PER_INSERT, len(vectors)))
            block = slice(rows.start, rows.stop)
            columns = zip(rows, vectors[block], categories[block].tolist(), strict=True)
            data = [{ROW: row, VECTOR: vector, CATEGORY: code} for row, vector, code in columns]
            self._call("insert", spec.collection, data, timeout=_ADMIN_TIMEOUT_S)
        self._call("flush", spec.collection, timeout=_BUILD_TIMEOUT_S)
        index = MilvusClient.prepare_index_params()
        # As one value "params": spread out, as pymilvus would do, milvus-lite overlooks them.
        build = {"params": {"params": spec.build}}
        index.add_index(VECTOR, index_type=spec.index_type, metric_type="IP", **build)
        self._call("create_index", spec.collection, index, timeout=_BUILD_TIMEOUT_S)
        self._call("load_collection", spec.collection, timeout=_BUILD_TIMEOUT_S)

    def drop(self, collection: str) -> None:
        """Of a collection that is not there, nothing happens."""
        self._call("drop_collection", collection, timeout=_ADMIN_TIMEOUT_S)

    def point(self, alias: str, collection: str) -> str | None:
        """Make the alias name the collection; the collection that it named before, if any."""
        before = self.target(alias)
        if before != collection:
            change = "create_alias" if before is None else "alter_alias"
            self._call(change, collection, alias, timeout=_ADMIN_TIMEOUT_S)
        return before

    def target(self, alias: str) -> str | None:
        """The collection that the alias names."""
        for collection in self._call("list_collections"):
            aliases: Sequence[str] | dict[str, Any] = self._call(
                "list_aliases", collection, timeout=_ADMIN_TIMEOUT_S
            )
            names = aliases["aliases"] if isinstance(aliases, dict) else aliases
            if alias in names:
                return str(collection)
        return None

    def close(self) -> None:
        """End the connection, and milvus-lite with it if it runs in this process."""
        with self._lock:
            if self._connected is None:
                return
            self._connected.close()
            self._connected = None
            if is_local(self._uri):
                from milvus_lite.server_manager import server_manager_instance

                server_manager_instance.release_server(self._uri)

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        connection = self._connection()
        try:
            return getattr(connection, method)(*arguments, **options)
        except Exception as error:  # pymilvus raises its own, grpc's, and others
            raise SearchUnavailableError(
                f"engine: Milvus did not answer a call ({method}) in time, or refused it; "
                "try again later"
            ) from error

    def _connection(self) -> Any:
        with self._lock:
            if self._connected is None:
                self._connected = self._connect()
            return self._connected

    def _connect(self) -> Any:
        try:
            from pymilvus import MilvusClient
        except ImportError as error:
            raise SearchUnavailableError(
                f"engine: {error.name} is not installed; run: pip install 're4[milvus]'"
            ) from error
        # Each failure is raised here, and told once. milvus-lite tells of a call that it lacks.
        for name in ("pymilvus", "milvus_lite", *(["grpc._server"] if is_local(self._uri) else [])):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            return MilvusClient(self._uri, timeout=self._timeout_s)
        except Exception as error:
            raise SearchUnavailableError(self._refusal()) from error

    def _refusal(self) -> str:
        if not is_local(self._uri):
            return "engine: Milvus cannot be reached, or refuses the user; is it running?"
        name = Path(self._uri).name
        return (
            f"engine: {name} cannot be opened: its folder must exist, and milvus-lite lets one "
            "process at a time use a file; end the other, or run `milvus-lite server` and give "
            "its http:// address"
        )

"""The catalogue as a Parquet file: one row per item, in row order."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index.retrieval.catalog import Catalog, CatalogError
from index.retrieval.dictionary_encoding import DictionaryEncoded
from index.retrieval.packed_ids import PackedIds

_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("popularity", pa.int64()),
        ("category", pa.string()),
        ("title", pa.string()),
    ]
)

_PACKED_FROM = 1 << 19  # items: fewer ids are a list and a dict, which are faster

# Only where an item has several categories: releases from before have no such column.
_OTHER_CATEGORIES = pa.field("other_categories", pa.list_(pa.string()))
_EXTENDED_SCHEMA = _SCHEMA.append(_OTHER_CATEGORIES)


def write_catalog(path: Path, catalog: Catalog) -> None:
    columns = [
        list(catalog.ids),
        catalog.popularity,
        list(catalog.categories),
        list(catalog.titles),
    ]
    schema = _SCHEMA
    if any(catalog.other_categories):
        columns.append([list(others) for others in catalog.other_categories])
        schema = _EXTENDED_SCHEMA
    arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path)


def read_catalog(path: Path, with_titles: bool = True) -> Catalog:
    """with_titles: else they are read when one is first asked for: few that serve need them.

    Raises CatalogError if the file is not a valid catalogue.
    """
    try:
        with pq.ParquetFile(path, read_dictionary=["category"], memory_map=True) as file:
            schema = file.schema_arrow
            unread = set() if with_titles else {"title"}
            table = file.read([name for name in schema.names if name not in unread])
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise CatalogError(f"catalog: {path.name} cannot be read ({error})") from error
    if not any(map(_plain(schema).equals, (_SCHEMA, _EXTENDED_SCHEMA))):
        raise CatalogError(
            f"catalog: {path.name} has columns {_columns(_plain(schema))}; "
            f"they must be {_columns(_SCHEMA)}"
        )
    if table["item_id"].null_count or table["popularity"].null_count:
        raise CatalogError("catalog: an item lacks its id or its popularity; every item has both")
    catalog = Catalog(
        ids=_read_ids(table["item_id"]),
        popularity=table["popularity"].to_numpy(),
        categories=_read_names(table["category"]),
        titles=table["title"].to_pylist() if with_titles else StoredTitles(path, len(table)),
        other_categories=_read_other_categories(table),
    )
    del table
    pa.default_memory_pool().release_unused()  # which it would keep for ever
    return catalog


class StoredTitles(Sequence[str | None]):
    """The titles in a catalogue's file, which are read when one is first asked for."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count = path, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, position: int) -> str | None: ...
    @overload
    def __getitem__(self, position: slice) -> list[str | None]: ...
    def __getitem__(self, position: int | slice) -> str | list[str | None] | None:
        if isinstance(position, slice):
            listed: list[str | None] = self._column[position].to_pylist()
            return listed
        title: str | None = self._column[position].as_py()
        return title

    @cached_property
    def _column(self) -> pa.ChunkedArray:
        """Raises CatalogError if the file cannot be read any more."""
        try:
            return pq.read_table(self._path, columns=["title"], partitioning=None)["title"]
        except (pa.ArrowException, OSError) as error:
            raise CatalogError(f"catalog: {self._path.name} cannot be read ({error})") from error


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema of the file, in which no column is a dictionary."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in schema
    ]
    return pa.schema(fields)


def _read_ids(ids: pa.ChunkedArray) -> Sequence[str]:
    if len(ids) < _PACKED_FROM:
        listed: list[str] = ids.to_pylist()
        return listed
    return PackedIds(ids.cast(pa.large_string()).combine_chunks())


def _read_names(column: pa.ChunkedArray) -> DictionaryEncoded[str]:
    """column: of dictionaries, whose nulls are unknown names."""
    unified = column.unify_dictionaries()
    codes = [chunk.indices.fill_null(-1).to_numpy() + 1 for chunk in unified.chunks]
    names = unified.chunk(0).dictionary.to_pylist() if unified.num_chunks else []
    return DictionaryEncoded(
        np.concatenate([np.empty(0, np.int32), *codes]).astype(np.int32), names
    )


def _read_other_categories(table: pa.Table) -> list[list[str]]:
    if _OTHER_CATEGORIES.name not in table.column_names:
        return []
    listed: list[list[str]] = table[_OTHER_CATEGORIES.name].to_pylist()
    if any(others is None or None in others for others in listed):
        raise CatalogError("catalog: other_categories has a null; each item has a list of names")
    return listed


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)

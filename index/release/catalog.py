"""The catalogue as a Parquet file: one row per item, in row order."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from index.retrieval.catalog import Catalog, CatalogError

_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("popularity", pa.int64()),
        ("category", pa.string()),
        ("title", pa.string()),
    ]
)

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


def read_catalog(path: Path) -> Catalog:
    """Raises CatalogError if the file is not a valid catalogue."""
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise CatalogError(f"catalog: {path.name} cannot be read ({error})") from error
    if not any(map(table.schema.equals, (_SCHEMA, _EXTENDED_SCHEMA))):
        raise CatalogError(
            f"catalog: {path.name} has columns {_columns(table.schema)}; "
            f"they must be {_columns(_SCHEMA)}"
        )
    if table["item_id"].null_count or table["popularity"].null_count:
        raise CatalogError("catalog: an item lacks its id or its popularity; every item has both")
    return Catalog(
        ids=table["item_id"].to_pylist(),
        popularity=table["popularity"].to_numpy(),
        categories=table["category"].to_pylist(),
        titles=table["title"].to_pylist(),
        other_categories=_read_other_categories(table),
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

"""Attributes of items as a Parquet file: one row per item, in row order, and a column for each.

A file of its own, which programs that know no attributes do not read.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index.retrieval.attributes import Column, Labels, Numbers
from index.retrieval.catalog import CatalogError
from index.retrieval.dictionary_encoding import DictionaryEncoded


def write_attributes(path: Path, columns: Mapping[str, Column]) -> None:
    arrays = [
        pa.array(column.values, pa.float64(), from_pandas=True)  # NaN becomes null
        if isinstance(column, Numbers)
        else _to_array(column)
        for column in columns.values()
    ]
    pq.write_table(pa.Table.from_arrays(arrays, names=[*columns]), path)


def _to_array(column: Column) -> pa.Array:
    assert isinstance(column, Labels), "a release is written from columns; this is a bug"
    codes = pa.array(column.encoded.codes - 1, mask=column.encoded.codes == 0)
    return pa.array(column.encoded.distinct).take(codes)


def read_attributes(path: Path) -> dict[str, Column]:
    """Raises CatalogError if the file cannot be read, or has values of other types."""
    try:
        table = pq.ParquetFile(path).read()
        return {name: _read_column(name, table[name]) for name in table.column_names}
    except (pa.ArrowException, OSError, KeyError) as error:
        raise CatalogError(f"attributes: {path.name} cannot be read ({error})") from error


def _read_column(name: str, column: pa.ChunkedArray) -> Column:
    if column.type == pa.float64():
        return Numbers(column.to_numpy())
    if pa.types.is_list(column.type):
        lists = [None if texts is None else tuple(texts) for texts in column.to_pylist()]
        return Labels(DictionaryEncoded.of(lists))
    if column.type not in (pa.string(), pa.bool_()):
        raise CatalogError(
            f"attributes: {name} is {column.type}; it must be text, double, bool or a list of text"
        )
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False) + 1
    return Labels(DictionaryEncoded(codes.astype(np.int32), encoded.dictionary.to_pylist()))

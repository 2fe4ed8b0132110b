"""Attributes survive a release's file; what is no such file is refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index.release.attributes import read_attributes, write_attributes
from index.retrieval.attributes import columns_of
from index.retrieval.catalog import CatalogError
from index.retrieval.details import Value

ITEMS: list[dict[str, Value]] = [
    {"price": 10.5, "stock": True, "brand": "ü 漢", "locale": ("de", "at")},
    {"stock": False, "brand": "", "locale": ()},
    {},
    {"price": 0.0, "brand": "ü 漢", "locale": ("de", "at")},
]


def test_attributes_survive_writing_and_reading(tmp_path: Path) -> None:
    path = tmp_path / "attributes.parquet"
    write_attributes(path, columns_of(ITEMS))
    read = read_attributes(path)
    assert sorted(read) == ["brand", "locale", "price", "stock"]
    for row, item in enumerate(ITEMS):
        assert {name: column[row] for name, column in read.items()} == {
            name: item.get(name) for name in read
        }


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "attributes.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(CatalogError, match=r"attributes: attributes.parquet cannot be read"):
        read_attributes(path)
    pq.write_table(pa.table({"price": pa.array([1, 2])}), path)
    with pytest.raises(CatalogError, match="price is int64; it must be text, double"):
        read_attributes(path)

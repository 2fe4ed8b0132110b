"""Columns of item files: the type of each, and what is missing."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data.item_metadata import read_items


def test_columns_of_text_get_the_type_of_all_their_values(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(
        "item_id,title,category,price,stock,code,locale,mixed\n"
        "a,A,Tea,10,true,01234,de|at,5\n"
        "b,,,-2.5e1,False,7,ch,five\n"
        "c,C,Tea, , ,,,\n"
    )
    items = read_items(path)
    assert items["a"].attributes == {
        "price": 10.0,
        "stock": True,
        "code": "01234",
        "locale": ("de", "at"),
        "mixed": "5",
    }
    assert items["b"].attributes == {
        "price": -25.0,
        "stock": False,
        "code": "7",
        "locale": ("ch",),
        "mixed": "five",
    }
    assert items["c"].attributes == {}
    assert (items["a"].title, items["a"].category) == ("A", "Tea")


def test_parquet_columns_keep_their_types(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "items.parquet"
    columns = {
        "item_id": ["a", "b"],
        "price": pa.array([5, None], pa.int32()),
        "weight": [float("nan"), 0.5],
        "stock": [True, None],
        "brand": pa.array(["x", None]).dictionary_encode(),
        "since": [date(2026, 1, 2), None],
        "locale": [["de", None, ""], None],
        "size": [{"width": 1}, None],
    }
    pq.write_table(pa.table(columns), path)
    items = read_items(path)
    assert items["a"].attributes == {
        "price": 5.0,
        "stock": True,
        "brand": "x",
        "since": "2026-01-02",
        "locale": ("de",),
    }
    assert items["b"].attributes == {"weight": 0.5}
    assert "column 'size' of struct<width: int64> is left out" in caplog.text

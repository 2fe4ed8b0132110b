"""Ids and rows, both ways; what is no catalogue is refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import index.release.catalog
from index.release.catalog import read_catalog, write_catalog
from index.retrieval.catalog import PADDING, Catalog, CatalogError
from index.retrieval.packed_ids import PackedIds

REPEATABLE = settings(deadline=None, derandomize=True)
IDS = ("a", "", "ü 漢", "item,\n1")


def catalog(ids: Sequence[str] = IDS, popularity: Sequence[int] = (9, 4, 4, 0)) -> Catalog:
    return Catalog(
        ids=ids,
        popularity=np.array(popularity),
        categories=["x", None, "y", "x"][: len(ids)],
        titles=[None, "Title", "標題", ""][: len(ids)],
    )


def test_row_and_id_are_inverse() -> None:
    items = catalog()
    assert len(items) == 4
    assert items.rows(IDS) == [1, 2, 3, 4]
    assert [items.id(row) for row in range(1, 5)] == list(IDS)


def test_an_unknown_id_is_padding() -> None:
    assert catalog().rows(["b", "a", "a", "A"]) == [PADDING, 1, 1, PADDING]
    assert catalog().rows(iter(())) == []


def test_a_catalogue_survives_writing_and_reading(tmp_path: Path) -> None:
    write_catalog(tmp_path / "catalog.parquet", catalog())
    read = read_catalog(tmp_path / "catalog.parquet")
    assert list(read.ids) == list(IDS)
    assert read.popularity.tolist() == [9, 4, 4, 0]
    assert list(read.categories) == ["x", None, "y", "x"]
    assert list(read.titles) == [None, "Title", "標題", ""]


def test_several_categories_survive_writing_and_reading(tmp_path: Path) -> None:
    path = tmp_path / "catalog.parquet"
    others = [["z"], [], ["x", "z"], []]
    write_catalog(path, replace(catalog(), other_categories=others))
    assert read_catalog(path).other_categories == others
    # One category an item: the file is as it always was.
    write_catalog(path, replace(catalog(), other_categories=[[]] * 4))
    assert pq.read_schema(path).names == ["item_id", "popularity", "category", "title"]
    assert not any(read_catalog(path).other_categories)
    with pytest.raises(CatalogError, match="other categories of 1 items; give them for all 4"):
        replace(catalog(), other_categories=[["z"]])


def test_many_ids_are_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index.release.catalog, "_PACKED_FROM", 1)
    path = tmp_path / "catalog.parquet"
    write_catalog(path, catalog())
    read = read_catalog(path, with_titles=False)
    assert isinstance(read.ids, PackedIds)
    assert list(read.ids) == list(IDS)
    assert read.rows([*IDS, "b"]) == [1, 2, 3, 4, PADDING]
    assert [read.id(row) for row in range(1, 5)] == list(IDS)
    assert list(read.categories) == ["x", None, "y", "x"]
    assert list(read.titles) == [None, "Title", "標題", ""], "read when asked for"
    twice = pa.table({**FIELDS, "item_id": pa.array(["a", "a"])})
    pq.write_table(twice, path)
    with pytest.raises(CatalogError, match="appears twice"):
        read_catalog(path)


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "date=2026-01-01"
    folder.mkdir()
    write_catalog(folder / "catalog.parquet", catalog())
    assert list(read_catalog(folder / "catalog.parquet").ids) == list(IDS)


@REPEATABLE
@given(st.sets(st.text(max_size=8), min_size=1, max_size=20), st.data())
def test_rows_agree_with_a_linear_search(ids: set[str], data: st.DataObject) -> None:
    ordered = sorted(ids)
    items = Catalog(ordered, np.zeros(len(ids), int), [None] * len(ids), [None] * len(ids))
    ids_given = data.draw(st.lists(st.one_of(st.sampled_from(ordered), st.text(max_size=8))))
    expected = [ordered.index(name) + 1 if name in ids else PADDING for name in ids_given]
    assert items.rows(ids_given) == expected


@pytest.mark.parametrize(
    ("ids", "popularity", "message"),
    [
        (("a", "b", "a"), (3, 2, 1), "an item id appears twice"),
        (("a", "b"), (1, 2), "popularity rises"),
        (("a", "b"), (1, -1), "popularity is negative"),
        (("a", "b"), (1,), r"fields of \[1, 2\] items"),
        ((), (), "no items"),
    ],
)
def test_an_invalid_catalogue_is_refused(
    ids: tuple[str, ...], popularity: tuple[int, ...], message: str
) -> None:
    with pytest.raises(CatalogError, match=message):
        catalog(ids, popularity)


FIELDS = {
    "item_id": pa.array(["a", "b"]),
    "popularity": pa.array([2, 1]),
    "category": pa.array(["x", None]),
    "title": pa.array([None, "t"]),
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"item_id": pa.array(["a", None])}, "lacks its id"),
        ({"popularity": pa.array([2, None])}, "lacks its id or its popularity"),
        ({"popularity": pa.array([2.5, 1.5])}, "popularity double.*must be.*popularity int64"),
        ({"item_id": pa.array([1, 2])}, "item_id int64.*must be item_id string"),
        ({"colour": pa.array([1, 2])}, "colour int64"),
        ({"title": None}, "has columns item_id string, popularity int64, category string;"),
    ],
)
def test_a_table_with_other_columns_is_refused(
    tmp_path: Path, changes: dict[str, pa.Array | None], message: str
) -> None:
    path = tmp_path / "catalog.parquet"
    columns = {name: column for name, column in {**FIELDS, **changes}.items() if column is not None}
    pq.write_table(pa.table(columns), path)
    with pytest.raises(CatalogError, match=message):
        read_catalog(path)


def test_an_id_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(
        pa.string(), 2, pa.array([b"\xff\xfe", b"b"], pa.binary()).buffers()
    )
    path = tmp_path / "catalog.parquet"
    pq.write_table(pa.table({**FIELDS, "item_id": bad}), path)
    with pytest.raises(CatalogError, match="UTF"):
        read_catalog(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(50) + b"PAR1", b"a,b\n1,2\n"])
def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "catalog.parquet"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=r"catalog\.parquet cannot be read"):
        read_catalog(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="cannot be read"):
        read_catalog(tmp_path / "catalog.parquet")

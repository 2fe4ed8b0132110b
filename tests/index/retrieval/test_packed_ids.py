"""Ids without an object for each: the same look-ups as a list and a dict."""

import zlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import index.retrieval.packed_ids
from index.retrieval.packed_ids import PackedIds, _crc32

REPEATABLE = settings(deadline=None, derandomize=True)


def packed(ids: list[str]) -> PackedIds:
    return PackedIds(pa.array(ids, pa.large_string()))


@REPEATABLE
@given(st.lists(st.text(max_size=12), unique=True), st.lists(st.text(max_size=12)))
def test_ids_and_rows_are_those_of_a_list(ids: list[str], others: list[str]) -> None:
    items = packed(ids)
    assert list(items) == ids
    assert items[1:] == ids[1:]
    assert items.are_unique()
    assert items.rows(ids) == [*range(1, len(ids) + 1)]
    unknown = [item_id for item_id in others if item_id not in ids]
    assert items.rows(unknown) == [0] * len(unknown)


def test_a_position_is_that_of_a_list() -> None:
    items = packed(["a", "ü 漢", "c"])
    assert items[-2] == "ü 漢"
    for position in (3, -4):
        with pytest.raises(IndexError):
            items[position]


def test_a_part_of_an_array_has_its_own_ids() -> None:
    part = PackedIds(pa.array(["a", "bb", "ccc", "d"], pa.large_string())[1:3])
    assert list(part) == ["bb", "ccc"]
    assert part.rows(["a", "bb", "ccc", "d"]) == [0, 1, 2, 0]


def test_a_repeated_id_is_found() -> None:
    assert not packed(["a", "b", "c", "b"]).are_unique()


def test_ids_with_the_same_hash_are_told_apart() -> None:
    pair = ["plumless", "buckeroo"]  # known for this
    assert zlib.crc32(pair[0].encode()) == zlib.crc32(pair[1].encode())
    items = packed(["x", *pair])
    assert items.are_unique()
    assert items.rows(pair) == [2, 3]


def test_an_id_that_no_utf8_has_is_unknown() -> None:
    assert packed(["a"]).rows(["\ud800"]) == [0]


def test_the_hash_is_that_of_zlib_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index.retrieval.packed_ids, "_BLOCK", 3)
    texts = [b"", b"a", b"long " * 9, b"bc", b"bd", b"\xff\x00", b""]
    offsets = np.cumsum([0, *map(len, texts)])
    data = np.frombuffer(b"".join(texts), np.uint8)
    assert _crc32(data, offsets).tolist() == [zlib.crc32(text) for text in texts]

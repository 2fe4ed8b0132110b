"""The files of items that a release does not know."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.release.manifest import NEW_ITEM_ATTRIBUTES, NEW_ITEM_DETAILS, NEW_ITEMS
from index.release.new_items import read_new_items, write_new_items
from index.retrieval.delta import Delta
from index.retrieval.details import Details

ITEMS = Delta(["a", "ü/b"], np.array([[1, 2, 3], [4, 5, 6]], np.float32))
DETAILS = {"ü/b": Details("Title", ["one", "two"], {"price": 2.5, "tags": ("x", "y"), "bio": True})}


def test_files_hold_ids_vectors_and_details(tmp_path: Path) -> None:
    files = write_new_items(tmp_path, replace(ITEMS, details=DETAILS))
    read = read_new_items(tmp_path, files, 3)
    assert read.delta.ids == ITEMS.ids
    np.testing.assert_array_equal(read.delta.vectors, ITEMS.vectors)
    assert read.details_of(["nobody", "ü/b", "a"]) == {**DETAILS, "a": Details()}


def test_items_may_have_no_attributes_and_in_older_releases_no_details(tmp_path: Path) -> None:
    files = write_new_items(tmp_path, ITEMS)
    assert files.keys() == {NEW_ITEMS, NEW_ITEM_DETAILS}
    assert read_new_items(tmp_path, files, 3).details_of(["a"]) == {"a": Details()}
    older = read_new_items(tmp_path, {NEW_ITEMS}, 3)
    assert older.delta.ids == ITEMS.ids
    assert older.details_of(["a"]) == {}


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (ITEMS.vectors[:1], r"\(1, 3\), not float32 \(2, 3\)"),
        (ITEMS.vectors[:, :2], r"\(2, 2\), not float32 \(2, 3\)"),
        (ITEMS.vectors * np.nan, "not finite"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(
    tmp_path: Path, vectors: np.ndarray, message: str
) -> None:
    files = write_new_items(tmp_path, replace(ITEMS, vectors=vectors))
    with pytest.raises(ValueError, match=message):
        read_new_items(tmp_path, files, 3)


def test_details_of_other_items_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write_new_items(tmp_path / "other", replace(ITEMS, ids=["a", "c"]))
    files = write_new_items(tmp_path, replace(ITEMS, details=DETAILS))
    (tmp_path / "other" / NEW_ITEM_DETAILS).replace(tmp_path / NEW_ITEM_DETAILS)
    assert NEW_ITEM_ATTRIBUTES in files
    with pytest.raises(ValueError, match="of other items"):
        read_new_items(tmp_path, files, 3)

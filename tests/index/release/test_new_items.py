"""The file of items that a release does not know."""

from pathlib import Path

import numpy as np
import pytest

from index.release.new_items import read_new_items, write_new_items
from index.retrieval.delta import Delta

ITEMS = Delta(["a", "ü/b"], np.array([[1, 2, 3], [4, 5, 6]], np.float32))


def test_a_file_holds_ids_and_vectors(tmp_path: Path) -> None:
    write_new_items(tmp_path / "file", ITEMS)
    read = read_new_items(tmp_path / "file", 3)
    assert read.ids == ITEMS.ids
    np.testing.assert_array_equal(read.vectors, ITEMS.vectors)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (Delta(["a"], ITEMS.vectors), r"\(2, 3\), not float32 \(1, 3\)"),
        (Delta(ITEMS.ids, ITEMS.vectors[:, :2]), r"\(2, 2\), not float32 \(2, 3\)"),
        (Delta(ITEMS.ids, ITEMS.vectors * np.nan), "not finite"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, items: Delta, message: str) -> None:
    write_new_items(tmp_path / "file", items)
    with pytest.raises(ValueError, match=message):
        read_new_items(tmp_path / "file", 3)

"""Titles are found by words and their beginnings, the most popular first."""

from pathlib import Path

import pyarrow as pa
import pytest

from index.release.errors import ReleaseError
from index.release.manifest import CATALOG
from service.page.titles import Titles

ITEMS = [
    ("Steam locomotive", "Model trains"),
    ("Green tea", "Tea"),
    ("Cast-iron teapot", "Tea"),
    ("TEA TOWEL", None),
    (None, "Tea"),
    ("Übergroße Tasse", "Tea"),
    (None, None),
]


@pytest.fixture
def titles() -> Titles:
    names, categories = zip(*ITEMS, strict=True)
    ids = [f"item-{row}" for row in range(1, len(ITEMS) + 1)]
    table = {
        "title": pa.array(names, pa.string()),
        "category": pa.array(categories, pa.string()),
        "item_id": ids,
    }
    return Titles(pa.table(table))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("tea", [4, 2, 3, 5, 6, 1]),  # starts with it; has a word that does; contains it
        ("Green", [2]),
        ("TEA green", [2]),
        ("een", [2]),
        ("übergroße", [6]),
        ("item-7", [7]),
        ("model steam", [1]),
        ("tea locomotive", [1]),
        ("locomotive green", []),  # words of two items
        ("green tea tea", [2]),
        ("coffee", []),
        (" ", []),
        ("\n", []),
    ],
)
def test_items_are_found_by_words_of_title_and_category(
    titles: Titles, text: str, rows: list[int]
) -> None:
    assert titles.search(text, 10) == rows


def test_no_more_are_found_than_wanted(titles: Titles) -> None:
    assert titles.search("tea", 2) == [4, 2]


def test_titles_and_categories_are_those_of_the_rows(titles: Titles) -> None:
    assert titles.of([3, 5, 1]) == [ITEMS[2], ITEMS[4], ITEMS[0]]
    assert titles.of([]) == []


def test_categories_are_counted(titles: Titles) -> None:
    assert titles.categories == [("Tea", 4), ("Model trains", 1)]


def test_items_without_any_category_are_searched() -> None:
    nothing = pa.nulls(2, pa.string())
    table = pa.table({"title": nothing, "category": nothing, "item_id": ["a-1", "a-2"]})
    assert Titles(table).search("a-2", 5) == [2]
    assert Titles(table).categories == []


def test_a_file_that_cannot_be_read_is_a_fault_of_the_release(tmp_path: Path) -> None:
    (tmp_path / CATALOG).write_bytes(b"PAR1")
    with pytest.raises(ReleaseError, match=r"titles of catalog\.parquet cannot be read"):
        Titles.read(tmp_path)

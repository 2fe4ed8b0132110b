"""What the shop has said about items, over the item file."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.store.details_export import FILE as EXPORTED
from training.data.errors import LogError
from training.data.item_changes import FILE, with_changes
from training.data.item_metadata import ItemDetails

ITEMS = {
    "a": ItemDetails("A", "Tea", ("Gifts",), {"price": 10.0, "stock": True}),
    "b": ItemDetails("B", None, (), {"locale": ("de",)}),
}


def write(folder: Path, *items: dict[str, Any]) -> None:
    nothing = {"title": None, "categories": None, "attributes": {}}
    lines = [json.dumps({**nothing, **item}) for item in items]
    (folder / FILE).write_text("".join(f"{line}\n" for line in lines))


def test_the_export_and_the_training_name_the_same_file() -> None:
    assert FILE == EXPORTED


def test_without_a_file_there_are_no_changes(tmp_path: Path) -> None:
    assert with_changes(ITEMS, tmp_path) == ITEMS
    write(tmp_path)
    assert with_changes(ITEMS, tmp_path) == ITEMS


def test_what_the_shop_said_takes_the_place_of_the_files_values(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"item_id": "a", "title": "Alpha", "attributes": {"price": 9.5}},
        {"item_id": "b", "categories": ["Mugs", "Gifts"], "attributes": {"locale": ["at", "ch"]}},
        {"item_id": "c", "title": "C", "attributes": {"colour": "red"}},
    )
    assert with_changes(ITEMS, tmp_path) == {
        "a": ItemDetails("Alpha", "Tea", ("Gifts",), {"price": 9.5, "stock": True}),
        "b": ItemDetails("B", "Mugs", ("Gifts",), {"locale": ("at", "ch")}),
        "c": ItemDetails("C", None, (), {"colour": "red"}),
    }


def test_a_value_of_another_type_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(
        tmp_path,
        {"item_id": "a", "attributes": {"price": "cheap", "colour": "red"}},
        {"item_id": "b", "attributes": {"colour": 5.0}},
    )
    changed = with_changes(ITEMS, tmp_path)
    assert changed["a"].attributes == {"price": 10.0, "stock": True, "colour": "red"}
    assert changed["b"].attributes == {"locale": ("de",)}
    assert "changed values of colour, price are left out" in caplog.text


@pytest.mark.parametrize("line", ["{", "[]", '{"item_id": "a"}', "5"])
def test_a_damaged_file_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / FILE).write_text(f"{line}\n")
    with pytest.raises(LogError, match="line 1: not what export-events writes"):
        with_changes(ITEMS, tmp_path)

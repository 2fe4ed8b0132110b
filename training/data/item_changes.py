"""What the shop has said about items since their file was made, as `export-events` writes it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from index.retrieval.details import Value
from training.data.errors import LogError
from training.data.item_metadata import ItemDetails, make_details
from training.data.matching import warn

FILE = "_item-details.jsonl"  # in the folder of the events


def with_changes(items: Mapping[str, ItemDetails], events: Path) -> dict[str, ItemDetails]:
    """The items with their changed titles, categories and attributes; those of the changes too.

    events: the folder of the events; without the file there are no changes. A value of another type
    than the column of the item file, or than the first change, is left out, with a warning. Raises
    LogError if the file is damaged.
    """
    changed = dict(items)
    types = {
        name: type(value)
        for item in reversed(changed.values())
        for name, value in item.attributes.items()
    }
    left_out = set()
    for item_id, title, categories, attributes in _read(events / FILE):
        before = changed.get(item_id, ItemDetails(None, None))
        said = make_details(title, categories)
        fitting: dict[str, Value] = {}
        for name, value in attributes.items():
            if types.setdefault(name, type(value)) is type(value):
                fitting[name] = value
            else:
                left_out.add(name)
        changed[item_id] = ItemDetails(
            said.title or before.title,
            *(said[1:3] if said.category else before[1:3]),
            {**before.attributes, **fitting},
        )
    if left_out:
        warn(
            f"{events / FILE}: changed values of {', '.join(sorted(left_out))} are left out; they "
            "are of another type than the item file's"
        )
    return changed


def _read(path: Path) -> Iterator[tuple[str, str | None, list[str] | None, dict[str, Value]]]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, start=1):
        try:
            item: dict[str, Any] = json.loads(line)
            attributes = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in item["attributes"].items()
            }
            yield item["item_id"], item["title"], item["categories"], attributes
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LogError(
                f"{path}, line {number:,}: not what export-events writes; export again"
            ) from error

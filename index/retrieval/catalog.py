"""The items of a release: opaque id <-> row, category, title, and popularity order.

Row 0 is padding. Rows 1..N are in falling order of popularity: the most popular items are the first
rows, and a log-uniform sampler over rows samples by popularity.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.retrieval.attributes import Column
from index.retrieval.details import TITLE, Details, Value
from index.retrieval.packed_ids import PackedIds

PADDING = 0


class CatalogError(ValueError):
    """The items do not form a valid catalogue."""


@dataclass(frozen=True)
class Catalog:
    """N items; the item of row r is at position r - 1 of each field.

    ids: packed where they are many. popularity: interactions of each item in the training log,
    never rising. categories, titles: None if unknown.
    other_categories: of each item, those beside its first; empty if no item has any.
    attributes: by name.
    """

    ids: Sequence[str]
    popularity: NDArray[np.int64]
    categories: Sequence[str | None]
    titles: Sequence[str | None]
    other_categories: Sequence[Sequence[str]] = ()
    attributes: Mapping[str, Column] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {len(self.ids), len(self.popularity), len(self.categories), len(self.titles)}
        if len(sizes) != 1:
            raise CatalogError(
                f"catalog: fields of {sorted(sizes)} items; all must be equally long"
            )
        if self.other_categories and len(self.other_categories) != len(self.ids):
            raise CatalogError(
                f"catalog: other categories of {len(self.other_categories)} items; give them for "
                f"all {len(self.ids)}, or for none"
            )
        for name, column in self.attributes.items():
            if len(column) != len(self.ids):
                raise CatalogError(
                    f"catalog: attribute {name!r} of {len(column)} items; give one for all "
                    f"{len(self.ids)}, unknown or not"
                )
        if not self.ids:
            raise CatalogError("catalog: no items; at least one is needed")
        if np.any(np.diff(self.popularity) > 0):
            raise CatalogError(
                "catalog: popularity rises with the row; sort the most popular first"
            )
        if self.popularity[-1] < 0:
            raise CatalogError("catalog: popularity is negative; it counts interactions")
        if not self._ids_are_unique():
            raise CatalogError("catalog: an item id appears twice; ids must be unique")

    def __len__(self) -> int:
        return len(self.ids)

    def _ids_are_unique(self) -> bool:
        if isinstance(self.ids, PackedIds):
            return self.ids.are_unique()
        return len(self._row_of) == len(self.ids)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.ids, start=1)}

    def rows(self, item_ids: Iterable[str]) -> list[int]:
        """The row of each id, in the given order; PADDING for an unknown id."""
        if isinstance(self.ids, PackedIds):
            return self.ids.rows(item_ids)
        return [*map(self._row_of.get, item_ids, repeat(PADDING))]

    def with_details(self, **fields: Any) -> "Catalog":
        """The same items with other titles, categories, other_categories or attributes."""
        catalog = copy(self)  # with the rows of the ids, and without another check of them
        for name, values in fields.items():
            object.__setattr__(catalog, name, values)
        return catalog

    def id(self, row: int) -> str:
        """The id of a row in 1..N."""
        return self.ids[row - 1]


def attributes_of(catalog: Catalog, names: Iterable[str], row: int) -> dict[str, Value | None]:
    """The named attributes of a row in 1..N, None where unknown: `title` is the title."""
    known = catalog.attributes
    found: dict[str, Value | None] = {
        name: known[name][row - 1] if name in known else None for name in names
    }
    if TITLE in found:
        found[TITLE] = catalog.titles[row - 1]
    return found


def details_of(catalog: Catalog, row: int) -> Details:
    """What the catalogue knows of the item in a row in 1..N."""
    categories = [catalog.categories[row - 1] or ""]
    if catalog.other_categories:
        categories += catalog.other_categories[row - 1]
    attributes = ((name, column[row - 1]) for name, column in catalog.attributes.items())
    return Details(
        catalog.titles[row - 1],
        [name for name in categories if name] or None,
        {name: value for name, value in attributes if value is not None},
    )

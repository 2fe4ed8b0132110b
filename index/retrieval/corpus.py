"""The items that queries may find: those of a catalogue, and a delta's beside them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index.retrieval.attribute_filter import AttributeFilter
from index.retrieval.attributes import mask
from index.retrieval.catalog import PADDING, Catalog
from index.retrieval.delta import Delta
from index.retrieval.filters import Categories, CategoryFilter, Filter
from index.retrieval.minimums import NEW_ITEMS, Group

_NO_ROWS: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Corpus:
    """N items of a catalogue in rows 1..N, and M of a delta, if there is one, in N + 1..N + M.

    categories: those of the catalogue.
    """

    catalog: Catalog
    categories: Categories
    delta: Delta | None = None

    def rows(self, item_ids: Sequence[str]) -> list[int]:
        """The row of each id in the catalogue, or else in the delta; 0 if in neither."""
        rows = self.catalog.rows(item_ids)
        if self.delta is None or PADDING not in rows:
            return rows
        delta_rows = self.delta.rows(item_ids, len(self.catalog))
        return [row or delta_row for row, delta_row in zip(rows, delta_rows, strict=True)]

    def catalog_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows, with PADDING for those of the delta."""
        return np.where(rows <= len(self.catalog), rows, PADDING)

    def mask(self, allowed: AttributeFilter) -> NDArray[np.bool_]:
        """(N + M + 1,): whether the filter allows each row; False for row 0."""
        passes = mask(self.catalog.attributes, allowed, len(self.catalog))
        if self.delta is None:
            return passes
        return np.concatenate((passes, mask(self.delta.attributes, allowed, len(self.delta))[1:]))

    def filter(
        self,
        excluded: frozenset[int],
        withdrawn: frozenset[int],
        categories: CategoryFilter | None,
        attributes: AttributeFilter | None,
    ) -> Filter:
        """excluded: rows of both. withdrawn: rows of the catalogue."""
        allowed = Filter(self.categories, excluded, withdrawn, None)
        if self.delta is not None:
            size = len(self.catalog)
            new = frozenset(row - size for row in excluded if row > size)
            known = frozenset(row for row in excluded if row <= size) if new else excluded
            beside = Filter(self.delta.categories, new, _NO_ROWS, None)
            allowed = replace(allowed, excluded=known, beside=beside)
        if categories:
            allowed = allowed.of_categories(categories)
        if attributes:
            allowed = allowed.within(self.mask(attributes))
        return allowed

    def are_of(self, rows: NDArray[np.int64], group: Group) -> NDArray[np.bool_]:
        """Whether each row (n,) is of a category, or a new item."""
        if group is NEW_ITEMS:
            return rows > len(self.catalog)
        has = self.categories.have(self.catalog_rows(rows), group)
        if self.delta is None:
            return has
        delta_rows = np.maximum(rows - len(self.catalog), PADDING)
        return has | self.delta.categories.have(delta_rows, group)

    def first_categories(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """(n,): the first category of each row as an integer, 0 for none."""
        codes: NDArray[np.int32] = self.categories.first.take(self.catalog_rows(rows))
        positions = np.flatnonzero(rows > len(self.catalog))
        if self.delta is not None and len(positions):
            firsts = self.delta.first_categories
            names = [firsts[row - len(self.catalog) - 1] for row in rows[positions].tolist()]
            codes[positions] = self.categories.first_codes(names)
        return codes

"""Filters of an answer: excluded and withdrawn items, categories and attributes."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from index.retrieval.attributes import RowMask
from index.retrieval.dictionary_encoding import DictionaryEncoded

_FEW = 0.1  # of all items: scoring so few one by one is faster than lists
_MORE = 8  # times as many popular items are looked at while too few of them are allowed


@dataclass(frozen=True, slots=True)
class CategoryFilter:
    """Allows items of a category in `allow`, if given, and of none in `deny`.

    Any category of an item counts. An item without a category passes `deny` and fails `allow`.
    Unknown names are no error.
    """

    allow: Collection[str] | None = None
    deny: Collection[str] = ()


class Categories:
    """The categories of each row as a small integer, 0 for none: rows with the same share one.

    codes (N + 1,). first (N + 1,): the same of the first category alone.
    """

    def __init__(self, names: Sequence[str | None], others: Sequence[Sequence[str]] = ()) -> None:
        """names (N,): the first category of rows 1..N. others: beside it; empty if none has any."""
        first = names if isinstance(names, DictionaryEncoded) else DictionaryEncoded.of(names)
        self.codes = self.first = _from_row_1(first.codes)
        self._first_names = first.distinct
        distinct: Sequence[Sequence[str]] = [(name,) for name in first.distinct]
        if others:
            combined = DictionaryEncoded.of(
                [
                    None if name is None else (name, *sorted(more))
                    for name, more in zip(names, others, strict=True)
                ]
            )
            self.codes, distinct = _from_row_1(combined.codes), combined.distinct
        self._codes_of: dict[str, list[int]] = {}
        for code, categories in enumerate(distinct, start=1):
            for name in categories:
                self._codes_of.setdefault(name, []).append(code)
        self._sizes = np.bincount(self.codes[1:])

    def passes(self, categories: CategoryFilter) -> NDArray[np.bool_]:
        """For each code, whether the filter allows its categories."""
        passes = np.full(len(self._sizes), categories.allow is None)
        passes[self._codes(categories.allow or ())] = True
        passes[self._codes(categories.deny)] = False
        return passes

    def have(self, rows: NDArray[np.int64], name: str) -> NDArray[np.bool_]:
        """Whether each row (n,) is of this category."""
        return self.passes(CategoryFilter([name])).take(self.codes.take(rows))

    def first_codes(self, names: Sequence[str | None]) -> list[int]:
        """For each name its number in `first`, or one of its own; 0 for None."""
        new: dict[str, int] = {}
        known = self._first_code_of
        return [
            0 if name is None else known.get(name) or new.setdefault(name, -1 - len(new))
            for name in names
        ]

    @cached_property
    def _first_code_of(self) -> dict[str, int]:
        return {name: code for code, name in enumerate(self._first_names, start=1)}

    def size(self, passes: NDArray[np.bool_]) -> int:
        """Number of items whose category passes."""
        return int(self._sizes[passes].sum())

    def _codes(self, names: Iterable[str]) -> list[int]:
        return [code for name in names for code in self._codes_of.get(name, ())]


def _from_row_1(codes: NDArray[np.int32]) -> NDArray[np.int32]:
    """(N + 1,): the codes (N,) of rows 1..N, and 0 for row 0."""
    return np.concatenate([np.zeros(1, np.int32), codes])


@dataclass(frozen=True, slots=True)
class Filter:
    """The rows of a catalogue of N items that are allowed in the answer to a query.

    excluded: by the query itself. withdrawn: from every answer; many, and shared by all queries.
    passes: for each category code; None if every category passes.
    mask: by attributes, and then by categories too; None if all rows pass.
    beside: that of the M items of a delta, by rows 1..M; None without one.
    """

    categories: Categories
    excluded: frozenset[int]
    withdrawn: frozenset[int]
    passes: NDArray[np.bool_] | None
    mask: RowMask | None = None
    beside: "Filter | None" = None

    def within(self, rows: NDArray[np.bool_]) -> "Filter":
        """The filter for some of the rows (N + 1,), not row 0, followed by those beside (M,)."""
        total, beside = len(self.categories.codes), self.beside
        if beside is not None:
            beside = beside.within(np.concatenate((rows[:1], rows[total:])))
        own = rows[:total]
        if self.mask is not None:
            own = own & self.mask.passes
        elif self.passes is not None:
            own = own & self.passes.take(self.categories.codes)
        return replace(self, passes=None, mask=RowMask(own), beside=beside)

    def of_categories(self, categories: CategoryFilter) -> "Filter":
        """The filter for the items of some categories."""
        beside = None if self.beside is None else self.beside.of_categories(categories)
        passes, mask = self.categories.passes(categories), self.mask
        if mask is not None:
            mask = RowMask(mask.passes & passes.take(self.categories.codes))
            return replace(self, mask=mask, beside=beside)
        if self.passes is not None:
            passes &= self.passes
        return replace(self, passes=passes, beside=beside)

    def of_beside(self) -> "Filter":
        """The filter for the items beside the catalogue alone."""
        return replace(self, passes=None, mask=RowMask(np.zeros(len(self.categories.codes), bool)))

    def __bool__(self) -> bool:
        """Whether it may exclude any item."""
        return bool(self.excluded or self.withdrawn or self._is_wide)

    @property
    def _is_wide(self) -> bool:
        """Whether it looks at each item's categories or attributes."""
        return self.passes is not None or self.mask is not None

    @property
    def passes_few(self) -> bool:
        """Whether so few items have the attributes that they are best scored one by one."""
        return self.mask is not None and self.mask.count <= _FEW * (len(self.mask.passes) - 1)

    def mask_scores(
        self, scores: NDArray[np.float32], rows: NDArray[np.int64] | None = None
    ) -> None:
        """Set scores (M,) of rows that are not allowed to minus infinity, in place.

        rows (M,), ascending; by default all items, from row 1 on.
        """
        # Adding penalties takes a quarter of the time of an assignment by a boolean mask.
        if self.passes is not None:
            codes = self.categories.codes[1:] if rows is None else self.categories.codes.take(rows)
            scores += _penalties(self.passes).take(codes)
        if (penalties := self.penalties) is not None:
            scores += penalties[1:] if rows is None else penalties.take(rows)
        if self.excluded:
            excluded = np.fromiter(self.excluded, np.int64, len(self.excluded))
            scores[_positions(excluded, len(scores), rows)] = -np.inf

    def exclude(
        self, scores: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> NDArray[np.float32] | None:
        """As mask_scores; returns the scores (M',) that were replaced.

        None, and nothing is done, if not only `excluded` items are left out.
        """
        if self.withdrawn or self._is_wide:
            return None
        excluded = np.fromiter(self.excluded, np.int64, len(self.excluded))
        positions = _positions(excluded, len(scores), rows)
        replaced: NDArray[np.float32] = scores[positions]
        scores[positions] = -np.inf
        return replaced

    def filter_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The allowed ones of the rows (M,), ascending."""
        scores = np.zeros(len(rows), np.float32)
        self.mask_scores(scores, rows)
        allowed: NDArray[np.int64] = rows[scores == 0]
        return allowed

    def rows(self) -> NDArray[np.int64]:
        """Every allowed row, ascending."""
        if self.mask is not None:
            return self.filter_rows(np.flatnonzero(self.mask.passes))
        scores = np.zeros(len(self.categories.codes) - 1, np.float32)
        self.mask_scores(scores)
        return np.flatnonzero(scores == 0) + 1

    @property
    def penalties(self) -> NDArray[np.float32] | None:
        """(N + 1,): minus infinity for each row that is withdrawn or masked, else 0; None if none
        is."""
        masked = None if self.mask is None else self.mask.penalties
        if not self.withdrawn:
            return masked
        withdrawn = _withdrawn_penalties(self.withdrawn, len(self.categories.codes))
        return withdrawn if masked is None else withdrawn + masked

    @property
    def passing(self) -> int:
        """Number of items whose category and attributes pass."""
        if self.mask is not None:
            return self.mask.count
        items = len(self.categories.codes) - 1
        return items if self.passes is None else self.categories.size(self.passes)

    @property
    def passes_any(self) -> bool:
        """Whether the category and the attributes of any item pass, in the catalogue or beside."""
        return bool(self.passing or (self.beside is not None and self.beside.passing))

    def most_popular(self, count: int) -> NDArray[np.int64]:
        """The first `count` allowed rows: rows are in falling order of popularity."""
        items = len(self.categories.codes) - 1
        looked_at = min(count + len(self.excluded) + len(self.withdrawn), items)
        while True:
            rows = self.filter_rows(np.arange(1, looked_at + 1))
            if len(rows) >= count or looked_at == items:
                return rows[:count]
            looked_at = min(_MORE * looked_at, items)  # few of these categories pass


# One for each request; None if all items are allowed.
Filters = Sequence[Filter | None] | None


def _penalties(passes: NDArray[np.bool_]) -> NDArray[np.float32]:
    """For each category code: 0 if it passes, else minus infinity."""
    return np.where(passes, np.float32(0), np.float32(-np.inf))


@lru_cache(maxsize=2)  # the same set for all queries until an item is withdrawn
def _withdrawn_penalties(withdrawn: frozenset[int], total: int) -> NDArray[np.float32]:
    """For each row (total,): minus infinity if it is withdrawn, else 0."""
    penalties = np.zeros(total, np.float32)
    rows = np.fromiter(withdrawn, np.int64, len(withdrawn))
    penalties[rows[rows < total]] = -np.inf
    return penalties


def _positions(
    targets: NDArray[np.int64], total: int, rows: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Positions of the target rows, where present, among `total` rows: ascending, or all from 1."""
    positions: NDArray[np.int64] = targets - 1 if rows is None else rows.searchsorted(targets)
    is_present = positions < total
    if rows is not None:
        is_present[is_present] = rows.take(positions[is_present]) == targets[is_present]
    return positions[is_present]

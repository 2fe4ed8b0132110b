"""Filters of an answer: excluded and withdrawn items, and allowed or denied categories."""

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=Hashable)


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
        combined = [
            None if name is None else (name, *sorted(more))
            for name, more in zip(names, others or repeat(()), strict=False)
        ]
        self.first = _codes(names)
        self.codes = _codes(combined) if others else self.first
        self._codes_of: dict[str, list[int]] = {}
        for code, categories in enumerate(_known(combined), start=1):
            for name in categories:
                self._codes_of.setdefault(name, []).append(code)
        self._sizes = np.bincount(self.codes[1:])

    def passes(self, categories: CategoryFilter) -> NDArray[np.bool_]:
        """For each code, whether the filter allows its categories."""
        passes = np.full(len(self._sizes), categories.allow is None)
        passes[self._codes(categories.allow or ())] = True
        passes[self._codes(categories.deny)] = False
        return passes

    def size(self, passes: NDArray[np.bool_]) -> int:
        """Number of items whose category passes."""
        return int(self._sizes[passes].sum())

    def _codes(self, names: Iterable[str]) -> list[int]:
        return [code for name in names for code in self._codes_of.get(name, ())]


def _known(values: Sequence[T | None]) -> list[T]:
    """The distinct values, in order of appearance."""
    return [value for value in dict.fromkeys(values) if value is not None]


def _codes(values: Sequence[Hashable | None]) -> NDArray[np.int32]:
    """(N + 1,): the values of rows 1..N as numbers from 1 on; 0 for None, and for row 0."""
    code_of = {value: code for code, value in enumerate(_known(values), start=1)}
    codes = np.zeros(len(values) + 1, dtype=np.int32)
    codes[1:] = [0 if value is None else code_of[value] for value in values]
    return codes


@dataclass(frozen=True, slots=True)
class Filter:
    """The rows of a catalogue of N items that are allowed in the answer to a query.

    excluded: by the query itself. withdrawn: from every answer; many, and shared by all queries.
    passes: for each category code; None if every category passes.
    """

    categories: Categories
    excluded: frozenset[int]
    withdrawn: frozenset[int]
    passes: NDArray[np.bool_] | None

    def __bool__(self) -> bool:
        """Whether it may exclude any item."""
        return bool(self.excluded or self.withdrawn or self.passes is not None)

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
        if self.withdrawn or self.passes is not None:
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
        scores = np.zeros(len(self.categories.codes) - 1, np.float32)
        self.mask_scores(scores)
        return np.flatnonzero(scores == 0) + 1

    @property
    def penalties(self) -> NDArray[np.float32] | None:
        """(N + 1,): minus infinity for each row that is withdrawn, else 0; None if none is."""
        if not self.withdrawn:
            return None
        return _withdrawn_penalties(self.withdrawn, len(self.categories.codes))

    @property
    def passing(self) -> int:
        """Number of items whose category passes."""
        items = len(self.categories.codes) - 1
        return items if self.passes is None else self.categories.size(self.passes)

    def most_popular(self, count: int) -> NDArray[np.int64]:
        """The first `count` allowed rows: rows are in falling order of popularity."""
        if self.passes is not None:
            return self.rows()[:count]
        dropped = len(self.excluded) + len(self.withdrawn)
        head = np.arange(1, min(count + dropped, len(self.categories.codes) - 1) + 1)
        return self.filter_rows(head)[:count]


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

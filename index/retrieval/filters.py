"""What may be in an answer: all but items seen, excluded or withdrawn, and by category."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_NONE = 0  # code of the items without a category


@dataclass(frozen=True, slots=True)
class CategoryFilter:
    """Of which categories items may be: those of `allow`, where given, but none of `deny`.

    An item without a category passes `deny` and fails `allow`. Names that no item has are no error.
    """

    allow: Collection[str] | None = None
    deny: Collection[str] = ()


class Categories:
    """The category of each row as a small integer, 0 for none.

    codes (N + 1,).
    """

    def __init__(self, names: Sequence[str | None]) -> None:
        """names (N,): of rows 1..N."""
        known = dict.fromkeys(names)
        known.pop(None, None)
        self._code_of: dict[str | None, int] = {name: at for at, name in enumerate(known, start=1)}
        self.codes = np.zeros(len(names) + 1, dtype=np.int32)
        self.codes[1:] = [self._code_of.get(name, _NONE) for name in names]
        self._sizes = np.bincount(self.codes[1:], minlength=len(known) + 1)

    def passes(self, asked: CategoryFilter) -> NDArray[np.bool_]:
        """Whether the category of each code may be in an answer."""
        passes = np.full(len(self._sizes), asked.allow is None)
        passes[self._codes(asked.allow or ())] = True
        passes[self._codes(asked.deny)] = False
        return passes

    def size(self, passes: NDArray[np.bool_]) -> int:
        """How many items have a category that passes."""
        return int(self._sizes[passes].sum())

    def _codes(self, names: Iterable[str]) -> list[int]:
        return [self._code_of[name] for name in names if name in self._code_of]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows of a catalogue of N items may be in the answer to a query.

    excluded: by the query itself. withdrawn: from every answer; many, and shared by all queries.
    passes: by code of the category; None where every category does.
    """

    categories: Categories
    excluded: frozenset[int]
    withdrawn: frozenset[int]
    passes: NDArray[np.bool_] | None

    def __bool__(self) -> bool:
        """Whether it may leave anything out."""
        return bool(self.excluded or self.withdrawn or self.passes is not None)

    def mask_scores(
        self, scores: NDArray[np.float32], rows: NDArray[np.int64] | None = None
    ) -> None:
        """Make minus infinity of the scores (M,) of those rows that may not be in the answer.

        rows (M,), which rise; where they are not given, all items, from row 1 on.
        """
        # By adding: to write where a mask says so takes four times as long.
        if self.passes is not None:
            codes = self.categories.codes[1:] if rows is None else self.categories.codes.take(rows)
            scores += _penalties(self.passes).take(codes)
        if self.withdrawn:
            penalties = _penalties_of(self.withdrawn, len(self.categories.codes))
            scores += penalties[1:] if rows is None else penalties.take(rows)
        if self.excluded:
            excluded = np.fromiter(self.excluded, np.int64, len(self.excluded))
            scores[_places(excluded, len(scores), rows)] = -np.inf

    def filter_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the rows (M,), which rise, that are allowed."""
        scores = np.zeros(len(rows), np.float32)
        self.mask_scores(scores, rows)
        allowed: NDArray[np.int64] = rows[scores == 0]
        return allowed

    def rows(self) -> NDArray[np.int64]:
        """Every row that is allowed, rising."""
        scores = np.zeros(len(self.categories.codes) - 1, np.float32)
        self.mask_scores(scores)
        return np.flatnonzero(scores == 0) + 1

    @property
    def passing(self) -> int:
        """How many items are of a category that may be in the answer."""
        items = len(self.categories.codes) - 1
        return items if self.passes is None else self.categories.size(self.passes)

    def most_popular(self, count: int) -> NDArray[np.int64]:
        """The first `count` rows that are allowed: rows are in falling order of popularity."""
        if self.passes is not None:
            return self.rows()[:count]
        barred = len(self.excluded) + len(self.withdrawn)
        head = np.arange(1, min(count + barred, len(self.categories.codes) - 1) + 1)
        return self.filter_rows(head)[:count]


# One for each request; none where all items are allowed.
Filters = Sequence[Filter | None] | None


def _penalties(passes: NDArray[np.bool_]) -> NDArray[np.float32]:
    """0 where it passes, else minus infinity."""
    return np.where(passes, np.float32(0), np.float32(-np.inf))


@lru_cache(maxsize=2)  # it is the same for all queries until an item is withdrawn
def _penalties_of(withdrawn: frozenset[int], total: int) -> NDArray[np.float32]:
    """By row (total,)."""
    penalties = np.zeros(total, np.float32)
    rows = np.fromiter(withdrawn, np.int64, len(withdrawn))
    penalties[rows[rows < total]] = -np.inf
    return penalties


def _places(
    wanted: NDArray[np.int64], total: int, rows: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Where the wanted rows stand among so many rows, which rise, or are all from 1 on."""
    places: NDArray[np.int64] = wanted - 1 if rows is None else rows.searchsorted(wanted)
    there = places < total
    if rows is not None:
        there[there] = rows.take(places[there]) == wanted[there]
    return places[there]

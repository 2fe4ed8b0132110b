"""What may be in an answer: all but items seen, excluded or withdrawn, and by category."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

_NONE = 0  # code of the items without a category
_FEW = 64  # items that are found with `count` others at little more than the cost of those
_SPARE = 8
# As many vectors are looked at in the time that it takes to search one deeper, about.
_LOOKED_AT = 16

_Places = Iterable[tuple[int, int]]  # places of a ranking and the rows that stand there


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

    def first(self, rows: NDArray[np.int64], count: int) -> list[int]:
        """The first `count` places of rows (M,) that hold an item, and one that is allowed."""
        # In Python: for some tens of rows that is ten times faster than by np.isin.
        excluded, withdrawn = self.excluded, self.withdrawn
        placed = self._passing(rows)
        if withdrawn:
            placed = ((place, row) for place, row in placed if row not in withdrawn)
        allowed = (place for place, row in placed if row > 0 and row not in excluded)
        return list(islice(allowed, count))

    def _passing(self, rows: NDArray[np.int64]) -> _Places:
        if self.passes is None:
            return enumerate(rows.tolist())
        places = np.flatnonzero(self.passes[self.categories.codes[rows]])
        return zip(places.tolist(), rows[places].tolist(), strict=True)

    @property
    def passing(self) -> int:
        """How many items are of a category that may be in the answer."""
        items = len(self.categories.codes) - 1
        return items if self.passes is None else self.categories.size(self.passes)

    def rows(self) -> NDArray[np.int64]:
        """Every row that is allowed, rising."""
        passes, codes = self.passes, self.categories.codes
        allowed = np.ones(len(codes), dtype=bool) if passes is None else passes[codes]
        allowed[0] = False
        for barred in (self.excluded, self.withdrawn):
            allowed[np.fromiter(barred, np.int64, len(barred))] = False
        return np.flatnonzero(allowed)

    def most_popular(self, count: int) -> NDArray[np.int64]:
        """The first `count` rows that are allowed: rows are in falling order of popularity."""
        if self.passes is not None:
            return self.rows()[:count]
        barred = len(self.excluded) + len(self.withdrawn)
        head = np.arange(1, min(count + barred, len(self.categories.codes) - 1) + 1)
        return head.take(self.first(head, count))

    def depths(self, count: int) -> list[int]:
        """How deep into a ranking to look for `count` that are allowed: at first, then, and so on.

        At the last there are enough for certain, or it would be quicker to look at all of them.
        """
        excluded, items = len(self.excluded), len(self.categories.codes) - 1
        if self.passes is None and not self.withdrawn and excluded <= count + _FEW:
            return [count + excluded]
        passing = self.passing
        barred = items - passing + len(self.withdrawn)
        likely = count + min(excluded, count + _FEW)
        if barred:
            likely += 2 * likely * barred // max(items - barred, 1) + _SPARE
        depths = [likely, 2 * likely, 4 * likely]
        if self.passes is None:
            certain = count + excluded + len(self.withdrawn)
            depths = [*(depth for depth in depths if depth < certain), certain]
        return [depth for depth in depths if _LOOKED_AT * depth < passing]

"""The correct answer to a request, by brute force over all items.

Shares no code with the product: it is written from the documentation.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_ORDERS = {"lt": float.__lt__, "lte": float.__le__, "gt": float.__gt__, "gte": float.__ge__}


class RequestedBoost(NamedTuple):
    """every, none: `all` and `not` of its filter."""

    every: Sequence[Mapping[str, Any]]
    none: Sequence[Mapping[str, Any]]
    add: float


@dataclass(frozen=True)
class Request:
    """A request, and the ids of withdrawn items.

    allow, deny: names of categories. every, none: `all` and `not` of the filter by attributes.
    """

    sequence: Sequence[str]
    k: int
    exclude_seen: bool
    exclude: Sequence[str]
    allow: Sequence[str] | None
    deny: Sequence[str]
    diversity: float
    withdrawn: frozenset[str]
    every: Sequence[Mapping[str, Any]] = ()
    none: Sequence[Mapping[str, Any]] = ()
    boosts: Sequence[RequestedBoost] = ()
    quota: int | None = None
    minimums: Mapping[str, int] = field(default_factory=dict)
    min_new: int = 0

    @property
    def least(self) -> dict[str, int]:
        """The minimum of each group: see Oracle._groups."""
        of_categories = {f"of {name}": count for name, count in self.minimums.items()}
        return {**of_categories, "new": self.min_new}


@dataclass(frozen=True)
class Expected:
    """scores, interests, boosts: of the items, in their order; interests are empty if popular."""

    items: list[str]
    scores: list[float]
    interests: list[int]
    boosts: list[float]
    source: str
    unknown: int


@dataclass(frozen=True)
class Oracle:
    """N items in falling order of popularity, then cold-start items, which nobody has taken.

    vectors (N + M, D) in float64, without padding. popularity: of all. catalog_size: N.
    """

    ids: Sequence[str]
    popularity: Sequence[int]
    categories: Sequence[str | None]
    vectors: NDArray[np.float64]
    attributes: Sequence[Mapping[str, Any]]
    catalog_size: int

    def answer(self, request: Request, interests: NDArray[np.float64]) -> Expected:
        """interests (K, D): of the sequence; ignored if it has no known item."""
        known = set(self.ids[: self.catalog_size])
        unknown = sum(item not in known for item in request.sequence)
        seen = request.sequence if request.exclude_seen else ()
        excluded = {*request.withdrawn, *request.exclude, *seen}
        allowed = [
            position
            for position, (item, category) in enumerate(zip(self.ids, self.categories, strict=True))
            if item not in excluded
            and _is_allowed(category, request)
            and _has_attributes(self.attributes[position], request.every, request.none)
        ]
        if not set(self.ids).intersection(request.sequence):
            scores = [float(n) for n in self.popularity]
            boosts = self._boosts(allowed, scores, request)
            scores = [score + boost for score, boost in zip(scores, boosts, strict=True)]
            chosen = self._choose(allowed, scores, request)
            return Expected(
                items=self._ids_of(chosen),
                scores=[scores[position] for position in chosen],
                interests=[],
                boosts=[boosts[position] for position in chosen],
                source="popular",
                unknown=unknown,
            )
        products = self.vectors @ interests.T
        plain = products.max(axis=1).tolist()
        boosts = self._boosts(allowed, plain, request)
        scores = [score + boost for score, boost in zip(plain, boosts, strict=True)]
        chosen = self._choose(allowed, scores, request, products.argmax(axis=1).tolist())
        return Expected(
            items=self._ids_of(chosen),
            scores=[scores[position] for position in chosen],
            boosts=[boosts[position] for position in chosen],
            interests=[int(products[position].argmax()) for position in chosen],
            source="interests",
            unknown=unknown,
        )

    def _ids_of(self, positions: Sequence[int]) -> list[str]:
        return [self.ids[position] for position in positions]

    def _boosts(
        self, allowed: Sequence[int], scores: Sequence[float], request: Request
    ) -> list[float]:
        """What is added to each item's score: the unit is the spread of the 4k best allowed."""
        pool = sorted((scores[position] for position in allowed), reverse=True)[: 4 * request.k]
        unit = (pool[0] - pool[-1] if pool else 0) or 1
        return [
            sum(
                boost.add
                for boost in request.boosts
                if _has_attributes(attributes, boost.every, boost.none)
            )
            * unit
            for attributes in self.attributes
        ]

    def _choose(
        self,
        allowed: list[int],
        scores: Sequence[float],
        request: Request,
        found_by: Sequence[int] | None = None,
    ) -> list[int]:
        """By score, quota, diversity and minimums. found_by: the interest; None if popular."""
        ranked = sorted(allowed, key=lambda position: (-scores[position], position))
        within = ranked
        if request.quota is not None and found_by is not None:
            left = dict.fromkeys(found_by, request.quota)
            within = []
            depth = 16 * request.k * (4 if request.diversity else 1)
            for position in ranked[:depth]:
                if left[found_by[position]] > 0:
                    left[found_by[position]] -= 1
                    within.append(position)
        chosen = self._diverse(within, scores, request)
        for group in request.least:
            self._fill(chosen, group, ranked, scores, request)
        if not request.diversity:
            chosen.sort(key=lambda position: (-scores[position], position))
        return chosen

    def _fill(
        self,
        chosen: list[int],
        group: str,
        ranked: Sequence[int],
        scores: Sequence[float],
        request: Request,
    ) -> None:
        """Add what the group lacks, then drop the lowest scored that no minimum needs."""
        sizes = self._sizes(chosen)
        lacking = max(0, request.least[group] - sizes[group])
        members = (position for position in ranked if group in self._groups(position))
        chosen += [position for position in members if position not in chosen][:lacking]
        while len(chosen) > request.k:
            sizes = self._sizes(chosen)
            spare = [
                position
                for position in chosen
                if all(sizes[each] > request.least.get(each, 0) for each in self._groups(position))
            ]
            chosen.remove(min(spare, key=lambda position: (scores[position], -position)))

    def _groups(self, position: int) -> list[str]:
        """Those that may have a minimum: the item's category, and the cold-start items."""
        is_new, category = position >= self.catalog_size, self.categories[position]
        return ["new"] * is_new + ([] if category is None else [f"of {category}"])

    def _sizes(self, chosen: Sequence[int]) -> Counter[str]:
        return Counter(group for position in chosen for group in self._groups(position))

    def _diverse(self, ranked: list[int], scores: Sequence[float], request: Request) -> list[int]:
        """The first k of the ranking, or the k that ComiRec's greedy algorithm chooses."""
        if request.diversity == 0:
            return ranked[: request.k]
        pool = ranked[: 4 * request.k]
        found = np.array([scores[position] for position in pool])
        spread = found.max() - found.min() if pool else 0.0
        relevance = (found - found.min()) / spread if spread else np.zeros(len(pool))
        names = np.array([self.categories[position] or "" for position in pool])
        pairs = np.zeros(len(pool))  # with chosen items of another category
        weight = 2 * request.diversity / max(request.k - 1, 1)
        left = np.ones(len(pool), dtype=bool)
        chosen: list[int] = []
        while left.any() and len(chosen) < request.k:
            gain = (1 - request.diversity) * relevance + weight * pairs
            best = int(np.where(left, gain, -np.inf).argmax())
            left[best] = False
            chosen.append(pool[best])
            pairs += names != names[best]
        return chosen


def _is_allowed(category: str | None, request: Request) -> bool:
    if request.allow is not None and category not in request.allow:
        return False
    return category is None or category not in request.deny


def _has_attributes(
    attributes: Mapping[str, Any],
    every: Sequence[Mapping[str, Any]],
    none: Sequence[Mapping[str, Any]],
) -> bool:
    wanted = all(_holds(attributes, group) for group in every)
    return wanted and not any(_holds(attributes, group) for group in none)


def _holds(attributes: Mapping[str, Any], group: Mapping[str, Any]) -> bool:
    return all(
        name in attributes and _compares(attributes[name], comparison)
        for name, comparison in group.items()
    )


def _compares(value: Any, comparison: Any) -> bool:
    if not isinstance(comparison, dict):
        comparison = {"in": [comparison]}
    for operator, given in comparison.items():
        if operator == "in":
            values = value if isinstance(value, tuple) else [value]
            if not any(type(one) is type(v) and one == v for one in given for v in values):
                return False
        elif type(value) is not float or not _ORDERS[operator](value, given):
            return False
    return True

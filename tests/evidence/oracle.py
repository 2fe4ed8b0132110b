"""The correct answer to a request, by brute force over all items.

Shares no code with the product: it is written from the documentation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ORDERS = {"lt": float.__lt__, "lte": float.__le__, "gt": float.__gt__, "gte": float.__ge__}


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


@dataclass(frozen=True)
class Expected:
    """scores, interests: of the items, in their order; interests are empty if popular."""

    items: list[str]
    scores: list[float]
    interests: list[int]
    source: str
    unknown: int


@dataclass(frozen=True)
class Oracle:
    """N items in falling order of popularity; vectors (N, D) in float64, without padding."""

    ids: Sequence[str]
    popularity: Sequence[int]
    categories: Sequence[str | None]
    vectors: NDArray[np.float64]
    attributes: Sequence[Mapping[str, Any]]

    def answer(self, request: Request, interests: NDArray[np.float64]) -> Expected:
        """interests (K, D): of the sequence; ignored if it has no known item."""
        known = set(self.ids)
        unknown = sum(item not in known for item in request.sequence)
        seen = request.sequence if request.exclude_seen else ()
        excluded = {*request.withdrawn, *request.exclude, *seen}
        allowed = [
            position
            for position, (item, category) in enumerate(zip(self.ids, self.categories, strict=True))
            if item not in excluded
            and _is_allowed(category, request)
            and _has_attributes(self.attributes[position], request)
        ]
        if unknown == len(request.sequence):
            chosen = self._choose(allowed, [float(n) for n in self.popularity], request)
            scores = [float(self.popularity[position]) for position in chosen]
            return Expected(self._ids_of(chosen), scores, [], "popular", unknown)
        products = self.vectors @ interests.T
        best = products.max(axis=1).tolist()
        allowed.sort(key=lambda position: (-best[position], position))
        chosen = self._choose(allowed, best, request)
        return Expected(
            items=self._ids_of(chosen),
            scores=[best[position] for position in chosen],
            interests=[int(products[position].argmax()) for position in chosen],
            source="interests",
            unknown=unknown,
        )

    def _ids_of(self, positions: Sequence[int]) -> list[str]:
        return [self.ids[position] for position in positions]

    def _choose(self, ranked: list[int], scores: Sequence[float], request: Request) -> list[int]:
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


def _has_attributes(attributes: Mapping[str, Any], request: Request) -> bool:
    wanted = all(_holds(attributes, group) for group in request.every)
    return wanted and not any(_holds(attributes, group) for group in request.none)


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

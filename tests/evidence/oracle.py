"""What a request is to be answered with, by the plainest way there is: every item, one by one.

Shares no code with what it judges, nor any trick: it is written from the README's words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Asked:
    """A request, and the ids of the items that are withdrawn at the time.

    allow, deny: names of categories.
    """

    sequence: Sequence[str]
    k: int
    exclude_seen: bool
    exclude: Sequence[str]
    allow: Sequence[str] | None
    deny: Sequence[str]
    diversity: float
    withdrawn: frozenset[str]


@dataclass(frozen=True)
class Expected:
    """scores, interests: of the items, in their order; interests are empty where popular."""

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

    def answer(self, asked: Asked, interests: NDArray[np.float64]) -> Expected:
        """interests (K, D): of the sequence; of no importance where that has no known item."""
        known = set(self.ids)
        unknown = sum(item not in known for item in asked.sequence)
        barred = {*asked.withdrawn, *asked.exclude, *(asked.sequence if asked.exclude_seen else ())}
        allowed = [
            place
            for place, (item, category) in enumerate(zip(self.ids, self.categories, strict=True))
            if item not in barred and _is_allowed(category, asked)
        ]
        if unknown == len(asked.sequence):
            chosen = self._choose(allowed, [float(n) for n in self.popularity], asked)
            scores = [float(self.popularity[place]) for place in chosen]
            return Expected(self._named(chosen), scores, [], "popular", unknown)
        products = self.vectors @ interests.T
        best = products.max(axis=1).tolist()
        allowed.sort(key=lambda place: (-best[place], place))
        chosen = self._choose(allowed, best, asked)
        return Expected(
            items=self._named(chosen),
            scores=[best[place] for place in chosen],
            interests=[int(products[place].argmax()) for place in chosen],
            source="interests",
            unknown=unknown,
        )

    def _named(self, places: Sequence[int]) -> list[str]:
        return [self.ids[place] for place in places]

    def _choose(self, ranked: list[int], scores: Sequence[float], asked: Asked) -> list[int]:
        """The k that are given of those ranked, best first: the first, or ComiRec's greedy way."""
        if asked.diversity == 0:
            return ranked[: asked.k]
        pool = ranked[: 4 * asked.k]
        found = np.array([scores[place] for place in pool])
        spread = found.max() - found.min() if pool else 0.0
        relevance = (found - found.min()) / spread if spread else np.zeros(len(pool))
        names = np.array([self.categories[place] or "" for place in pool])
        pairs = np.zeros(len(pool))  # with those chosen so far, of differing category
        weight = 2 * asked.diversity / max(asked.k - 1, 1)
        left = np.ones(len(pool), dtype=bool)
        chosen: list[int] = []
        while left.any() and len(chosen) < asked.k:
            gain = (1 - asked.diversity) * relevance + weight * pairs
            best = int(np.where(left, gain, -np.inf).argmax())
            left[best] = False
            chosen.append(pool[best])
            pairs += names != names[best]
        return chosen


def _is_allowed(category: str | None, asked: Asked) -> bool:
    if asked.allow is not None and category not in asked.allow:
        return False
    return category is None or category not in asked.deny

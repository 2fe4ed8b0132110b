"""Items that came after a release: each placed among its neighbours, in a delta beside the index.

Nothing is trained. An item points to where the users stood who took it: to the items that they had
taken just before. It is as long as the middle one of the catalogue's vectors, so that it competes
with items that are neither rare nor popular.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from index.retrieval.merge import QueryHits

NEIGHBOURS = 3  # known items of the history before it that a new item is placed by


@dataclass(frozen=True)
class Delta:
    """M items beside a catalogue of N, which stand in answers as the rows N + 1 .. N + M.

    ids (M); vectors (M, D) float32.
    """

    ids: Sequence[str]
    vectors: NDArray[np.float32]

    @classmethod
    def of(cls, vectors: Mapping[str, NDArray[np.float32]]) -> "Delta":
        """Of vectors (D,) by id."""
        return cls([*vectors], np.array([*vectors.values()], dtype=np.float32))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _place_of(self) -> dict[str, int]:
        return {item_id: place for place, item_id in enumerate(self.ids)}

    def rows(self, item_ids: Iterable[str], items: int) -> list[int]:
        """The row of each, 0 for those that are not here. items: N, of the catalogue."""
        place = self._place_of.get
        return [items + 1 + found if (found := place(each)) is not None else 0 for each in item_ids]

    def without(self, item_ids: Collection[str]) -> "Delta":
        """The same but for these."""
        kept = [place for place, item_id in enumerate(self.ids) if item_id not in item_ids]
        if len(kept) == len(self):
            return self
        return Delta([self.ids[place] for place in kept], self.vectors[kept])

    def best(
        self, interests: NDArray[np.float32], barred: Iterable[str], count: int, items: int
    ) -> QueryHits:
        """At most `count` of them for interests (K, D), best first, none of those barred.

        items: N, of the catalogue.
        """
        products = self.vectors @ interests.T
        scores = products.max(axis=1)
        scores[[self._place_of[item] for item in barred if item in self._place_of]] = -np.inf
        places = (-scores).argsort(kind="stable")[:count]
        places = places[scores[places] > -np.inf]
        return items + 1 + places, scores[places], products[places].argmax(axis=1)


def beside(line: QueryHits, new: QueryHits, count: int) -> QueryHits:
    """The `count` best of both, each best first. Ties go to the lower row: to the line's."""
    rows = np.concatenate((line[0], new[0]))
    scores = np.concatenate((line[1], new[1]))
    interests = np.concatenate((line[2], new[2]))
    order = (-scores).argsort(kind="stable")[:count]
    return rows[order], scores[order], interests[order]


def user_context(vectors: NDArray[np.float32], history: Sequence[int]) -> NDArray[np.float32]:
    """Where a user with a history of rows, newest last and not empty, stands: (D,), of length 1.

    vectors (N + 1, D): those of the release.
    """
    return unit(vectors[history[-NEIGHBOURS:]].mean(axis=0))


def vector_at(stands: Sequence[NDArray[np.float32]], length: float) -> NDArray[np.float32]:
    """The vector (D,) of an item whose takers stood there."""
    return length * unit(np.mean(stands, axis=0))


def middle_length(vectors: NDArray[np.float32]) -> float:
    """The median length of the vectors (N + 1, D), but for row 0."""
    return float(np.median(np.linalg.norm(vectors[1:], axis=1)))


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vector (D,) brought to length 1; one of zeros stays so."""
    brought: NDArray[np.float32] = vector / max(float(np.linalg.norm(vector)), _SHORTEST)
    return brought


_SHORTEST = 1e-12  # in place of a length of 0

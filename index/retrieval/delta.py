"""Cold-start items, newer than the release: a delta of items that is searched beside the index.

Nothing is trained. A new item's vector points to the contexts of the users who interacted with it:
to the items just before it in their histories. Its words, where they are known, pull it as some
users would. Its norm is the median of the catalogue's vectors,
so that it competes with items that are neither rare nor popular.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from index.retrieval.attributes import Column, Labels
from index.retrieval.details import NOTHING, Details, Value
from index.retrieval.dictionary_encoding import DictionaryEncoded
from index.retrieval.filters import Categories, Filter
from index.retrieval.merge import QueryHits
from index.retrieval.patches import PatchedColumn

CONTEXT_ITEMS = 3  # newest known items of a history that make a user context
WORDS_WEIGHT = 5  # users that an item's words count for
_MIN_NORM = 1e-12  # in place of a norm of 0


@dataclass(frozen=True, eq=False)
class Delta:
    """M items beside a catalogue of N items, with the rows N + 1 .. N + M in answers.

    ids (M); vectors (M, D) float32. details: by id, of those of which something is known.
    """

    ids: Sequence[str]
    vectors: NDArray[np.float32]
    details: Mapping[str, Details] = field(default_factory=dict)

    @classmethod
    def of(cls, vectors: Mapping[str, NDArray[np.float32]]) -> "Delta":
        """From a vector (D,) for each id."""
        return cls([*vectors], np.array([*vectors.values()], dtype=np.float32))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _position_of(self) -> dict[str, int]:
        return {item_id: position for position, item_id in enumerate(self.ids)}

    @cached_property
    def first_categories(self) -> Sequence[str | None]:
        """(M): None for none."""
        return [names[0] if names else None for names in self._categories]

    @cached_property
    def categories(self) -> Categories:
        """Of rows 1..M."""
        others = [names[1:] for names in self._categories]
        return Categories(self.first_categories, others if any(others) else ())

    @cached_property
    def attributes(self) -> Mapping[str, Column]:
        """By name, those of the M items, whose values may differ in type."""
        values: defaultdict[str, dict[int, Value]] = defaultdict(dict)
        for position, item_id in enumerate(self.ids):
            for name, value in self.details_of(item_id).attributes.items():
                values[name][position] = value
        unknown = Labels(DictionaryEncoded.of_none(len(self)))
        return {name: PatchedColumn.of(unknown, of_name) for name, of_name in values.items()}

    @cached_property
    def _categories(self) -> Sequence[Sequence[str]]:
        return [self.details_of(item_id).categories or () for item_id in self.ids]

    def details_of(self, item_id: str) -> Details:
        """What is known of an item."""
        return self.details.get(item_id, NOTHING)

    def rows(self, item_ids: Iterable[str], catalog_size: int) -> list[int]:
        """The row of each id, 0 for an unknown one. catalog_size: N."""
        positions = [self._position_of.get(item_id) for item_id in item_ids]
        return [0 if position is None else catalog_size + 1 + position for position in positions]

    def without(self, item_ids: Collection[str]) -> "Delta":
        """The delta without these items."""
        kept = [position for position, item_id in enumerate(self.ids) if item_id not in item_ids]
        if len(kept) == len(self):
            return self
        return self._part(kept)

    def only(self, item_ids: Collection[str], count: int) -> "Delta":
        """The first `count` of these items that it has; the time it takes is theirs."""
        known = self._position_of
        return self._part(sorted(known[item] for item in item_ids if item in known)[:count])

    def _part(self, positions: Sequence[int]) -> "Delta":
        ids = [self.ids[position] for position in positions]
        return Delta(ids, self.vectors[positions], self.details)

    def joined(self, other: "Delta") -> "Delta":
        """Both, whose ids differ: this one's items first."""
        if not (self and other):
            return self or other
        vectors = np.concatenate((self.vectors, other.vectors))
        return Delta([*self.ids, *other.ids], vectors, {**self.details, **other.details})

    def search(
        self, interests: NDArray[np.float32], allowed: Filter | None, count: int, catalog_size: int
    ) -> QueryHits:
        """The `count` best items for interests (K, D), best first, that are allowed.

        allowed: of rows 1..M; None for all. catalog_size: N.
        """
        products = self.vectors @ interests.T
        scores = products.max(axis=1)
        if allowed is not None:
            allowed.mask_scores(scores)
        best = (-scores).argsort(kind="stable")[:count]
        best = best[scores[best] > -np.inf]
        return catalog_size + 1 + best, scores[best], products[best].argmax(axis=1)


def merge_delta_hits(hits: QueryHits, delta_hits: QueryHits, count: int) -> QueryHits:
    """The `count` best of both, each best first. Ties go to the lower row: the catalogue's."""
    rows = np.concatenate((hits[0], delta_hits[0]))
    scores = np.concatenate((hits[1], delta_hits[1]))
    interests = np.concatenate((hits[2], delta_hits[2]))
    order = (-scores).argsort(kind="stable")[:count]
    return rows[order], scores[order], interests[order]


def user_context(
    vectors: NDArray[np.float32], history: Sequence[int], content: int | None = None
) -> NDArray[np.float32]:
    """The mean direction (D,), of norm 1, of the newest items of a history: rows, newest last.

    The history is not empty. vectors (N + 1, D): those of the release. content: the number of
    coordinates that have a direction, None for all; the others are terms of the score, such as a
    part of the catalogue, and those of most of the items are taken.
    """
    newest = vectors[history[-CONTEXT_ITEMS:]]
    return _combine(normalize(newest[:, :content].mean(axis=0)), newest, content)


def cold_start_vector(
    user_contexts: Sequence[NDArray[np.float32]], norm: float, content: int | None = None
) -> NDArray[np.float32]:
    """The vector (D,) of a new item from the contexts of the users who interacted with it."""
    contexts = np.array(user_contexts)
    return _combine(norm * normalize(contexts[:, :content].mean(axis=0)), contexts, content)


def with_words(taken: Delta, users: Mapping[str, int], words: Delta, content: int) -> Delta:
    """Items that users took, placed by their words too, as far as `words` has them.

    users: of each item. The lengths, and the terms after the content, stay.
    """
    part = words.only(taken.ids, len(taken))
    if not part:
        return taken
    positions = [row - 1 for row in taken.rows(part.ids, 0)]
    counts = np.array([users[item] for item in part.ids], np.float32)[:, None]
    own = taken.vectors[positions, :content]
    both = counts * _directions(own) + WORDS_WEIGHT * _directions(part.vectors[:, :content])
    vectors = taken.vectors.copy()
    vectors[positions, :content] = np.linalg.norm(own, axis=1)[:, None] * _directions(both)
    return Delta(taken.ids, vectors, taken.details)


def _directions(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each of the vectors (n, D) scaled to norm 1; zeros stay zeros."""
    directions: NDArray[np.float32] = vectors / np.maximum(
        np.linalg.norm(vectors, axis=1, keepdims=True), _MIN_NORM
    )
    return directions


def _combine(
    direction: NDArray[np.float32], vectors: NDArray[np.float32], content: int | None
) -> NDArray[np.float32]:
    """The direction, and the lower median of the terms after the content of vectors (n, D)."""
    if content is None or content == vectors.shape[1]:
        return direction
    terms = np.quantile(vectors[:, content:], 0.5, axis=0, method="lower")
    return np.concatenate((direction, terms)).astype(np.float32)


def median_norm(vectors: NDArray[np.float32], content: int | None = None) -> float:
    """The median norm of the content of the vectors (N + 1, D), without row 0."""
    contents = np.asarray(vectors)[1:, :content]
    return float(np.median(np.sqrt(np.vecdot(contents, contents))))  # without a copy of them all


def normalize(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vector (D,) scaled to norm 1; a vector of zeros stays zero."""
    normalized: NDArray[np.float32] = vector / max(float(np.linalg.norm(vector)), _MIN_NORM)
    return normalized

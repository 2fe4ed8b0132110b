"""Vectors of items from their words: TF-IDF of title, categories and attributes, then a regression.

Training fits it with scikit-learn; the service, which has none, computes the same here.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.retrieval.delta import Delta, normalize
from index.retrieval.details import Details

MAX_CHARACTERS = 128  # of a word: longer values are texts that hardly two items share
_WORD = re.compile(r"[^\W_]+")


def words_of(item: Details) -> Iterator[str]:
    """The words of the title; each category and each attribute as a word of its own.

    Numbers are left out: what they mean is not in their digits.
    """
    words = [f"title {word}" for word in _WORD.findall((item.title or "").lower())]
    words += (f"category {category}" for category in item.categories or ())
    for name, value in item.attributes.items():
        texts = value if isinstance(value, tuple) else (value,)
        words += (f"{name} = {text}" for text in texts if not isinstance(text, float))
    return (word for word in words if len(word) <= MAX_CHARACTERS)


@dataclass(frozen=True, eq=False)
class TextModel:
    """W words: the position of each; idf (W,); weights (W, C) and intercept (C,), all float32.

    norm: of the content of each vector, and terms (D - C,): what follows it, as of most items of
    the release: see index.retrieval.delta.
    """

    words: Mapping[str, int]
    idf: NDArray[np.float32]
    weights: NDArray[np.float32]
    intercept: NDArray[np.float32]
    norm: float
    terms: NDArray[np.float32]

    @property
    def dim(self) -> int:
        """D, of the vectors."""
        return len(self.intercept) + len(self.terms)

    def direction(self, item: Details) -> NDArray[np.float32] | None:
        """(C,), of norm 1; None without a known word."""
        known = Counter(at for word in words_of(item) if (at := self.words.get(word)) is not None)
        if not known:
            return None
        positions = np.fromiter(known.keys(), np.int64, len(known))
        counts = np.fromiter(known.values(), np.float32, len(known))
        tfidf = normalize(counts * self.idf.take(positions))
        return normalize(tfidf @ self.weights.take(positions, axis=0) + self.intercept)

    def delta(self, items: Mapping[str, Details]) -> Delta:
        """The items with a known word, and their vectors."""
        directions = {item: self.direction(details) for item, details in items.items()}
        found = {item: each for item, each in directions.items() if each is not None}
        vectors = np.empty((len(found), self.dim), np.float32)
        for vector, direction in zip(vectors, found.values(), strict=True):
            vector[:] = np.concatenate((self.norm * direction, self.terms))
        return Delta([*found], vectors, {item: items[item] for item in found})

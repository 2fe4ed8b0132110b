"""Vectors of items from their words, before anybody took them.

TF-IDF of title, categories and attributes, then ridge regression to the vectors of a training. What
it is worth is measured on items that it was not fitted to.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.encoders import Encoder
from index.retrieval.catalog import Catalog
from index.retrieval.delta import Delta, median_norm
from training.data.item_metadata import ItemDetails

CONTENT_METRICS = "content"  # their name among a manifest's
MAX_NEW_ITEMS = 100_000  # as many as may be announced
_MIN_ITEMS = 20  # with words that others have too; with fewer there is nothing to learn from
_MIN_ITEMS_OF_WORD = 2
_MAX_WORDS = 50_000  # the most frequent
# Tried for the weight of the coefficients' squares, on a tenth of the items; the best is measured
# on another tenth.
_RIDGES = (0.3, 1.0, 3.0, 10.0)
_SHARE = 0.1
_SEED = 0
_WORD = re.compile(r"[^\W_]+")

_Directions = NDArray[np.float32]


def words_of(item: ItemDetails) -> Iterator[str]:
    """The words of the title; each category and each attribute as a word of its own.

    Numbers are left out: what they mean is not in their digits.
    """
    for word in _WORD.findall((item.title or "").lower()):
        yield f"title {word}"
    for category in (item.category, *item.other_categories):
        if category is not None:
            yield f"category {category}"
    for name, value in item.attributes.items():
        for text in value if isinstance(value, tuple) else (value,):
            if not isinstance(text, float):
                yield f"{name} = {text}"


@dataclass(frozen=True)
class ContentModel:
    """metrics: of a model that was not fitted to a tenth of the items, on these: the mean `cosine`
    between predicted and trained vectors, what the mean vector of all reaches (`cosine_of_mean`),
    how many `items` these are, and the `ridge` chosen.

    norm: of the content of each vector, and terms: what follows it, as of most items of the
    release: see index.retrieval.delta.
    """

    metrics: dict[str, float]
    _regression: "_Regression"
    norm: float
    terms: NDArray[np.float32]

    def delta(self, items: Mapping[str, ItemDetails]) -> Delta:
        """The items with a known word, and their vectors."""
        documents = {item: [*words_of(details)] for item, details in items.items()}
        known = self._regression.known
        chosen = [item for item, words in documents.items() if not known.isdisjoint(words)]
        if not chosen:
            return Delta([], np.empty((0, 0), np.float32))
        content = self.norm * self._regression.predict([documents[item] for item in chosen])
        terms = np.tile(self.terms, (len(chosen), 1))
        vectors = np.hstack((content, terms)).astype(np.float32)
        return Delta(chosen, vectors, {item: items[item].known for item in chosen})


def fit_content(
    catalog: Catalog,
    items: Mapping[str, ItemDetails],
    encoder: Encoder,
    vectors: NDArray[np.float32],
) -> ContentModel | None:
    """None if too few items of the catalogue have words that others have too.

    vectors (N + 1, D): those of the catalogue.
    """
    documents = [[*words_of(items[item])] if item in items else [] for item in catalog.ids]
    items_of = Counter(word for words in documents for word in set(words))
    documents = [[w for w in words if items_of[w] >= _MIN_ITEMS_OF_WORD] for words in documents]
    rows = np.flatnonzero([len(words) > 0 for words in documents]) + 1
    if len(rows) < _MIN_ITEMS:
        return None
    kept = [documents[row - 1] for row in rows]
    directions = _directions(vectors[rows, : encoder.content])
    metrics = _measure(kept, directions)
    return ContentModel(
        metrics,
        _Regression(kept, directions, metrics["ridge"]),
        median_norm(vectors, encoder.content),
        np.quantile(vectors[1:, encoder.content :], 0.5, axis=0, method="lower"),
    )


class _Regression:
    """Directions (n, D) of documents, by their weighted words."""

    def __init__(
        self, documents: Sequence[Sequence[str]], directions: _Directions, ridge: float
    ) -> None:
        # They take a second to import, and few programs that import this fit anything.
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import Ridge

        self._tfidf: Any = TfidfVectorizer(analyzer=list, max_features=_MAX_WORDS, dtype=np.float32)
        self._ridge: Any = Ridge(ridge, solver="sparse_cg")
        self._ridge.fit(self._tfidf.fit_transform(documents), directions)
        self.known = frozenset(self._tfidf.vocabulary_)

    def predict(self, documents: Sequence[Sequence[str]]) -> _Directions:
        return _directions(self._ridge.predict(self._tfidf.transform(documents)))


def _measure(documents: Sequence[Sequence[str]], directions: _Directions) -> dict[str, float]:
    draws = np.random.default_rng(_SEED).permutation(len(documents))
    size = max(1, round(_SHARE * len(documents)))
    chosen_on, measured_on, rest = draws[:size], draws[size : 2 * size], draws[2 * size :]

    def fit(on: NDArray[np.int64], ridge: float) -> _Regression:
        return _Regression([documents[at] for at in on], directions[on], ridge)

    def cosine(fitted: _Regression, on: NDArray[np.int64]) -> float:
        predicted = fitted.predict([documents[at] for at in on])
        return float(np.vecdot(predicted, directions[on]).mean())

    trials = {ridge: fit(rest, ridge) for ridge in _RIDGES}
    ridge = max(trials, key=lambda each: cosine(trials[each], chosen_on))
    mean = _directions(directions[rest].mean(axis=0, keepdims=True))
    return {
        "cosine": cosine(trials[ridge], measured_on),
        "cosine_of_mean": float((directions[measured_on] @ mean[0]).mean()),
        "items": float(len(measured_on)),
        "ridge": ridge,
    }


def _directions(vectors: NDArray[Any]) -> _Directions:
    """Each scaled to norm 1; zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: _Directions = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return scaled

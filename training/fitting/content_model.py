"""Vectors of items from their words, before anybody took them.

TF-IDF of title, categories and attributes, then ridge regression to the vectors of a training. What
it is worth is measured on items that it was not fitted to.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.encoders import Encoder
from index.retrieval.catalog import Catalog
from index.retrieval.delta import median_norm
from index.retrieval.text_model import TextModel, words_of
from training.data.item_metadata import ItemDetails

CONTENT_METRICS = "content"  # their name among a manifest's
MAX_NEW_ITEMS = 100_000  # as many as may be announced
_MIN_ITEMS = 20  # with words that others have too; with fewer there is nothing to learn from
_MIN_ITEMS_OF_WORD = 2
_MAX_WORDS = 50_000  # the most frequent
_MAX_WEIGHTS = 1 << 23  # of all words: 32 MiB in a release, and in each process that serves it
# Tried for the weight of the coefficients' squares, on a tenth of the items; the best is measured
# on another tenth.
_RIDGES = (0.3, 1.0, 3.0, 10.0)
_SHARE = 0.1
_SEED = 0

_Directions = NDArray[np.float32]


@dataclass(frozen=True)
class ContentModel:
    """metrics: of a model that was not fitted to a tenth of the items, on these: the mean `cosine`
    between predicted and trained vectors, what the mean vector of all reaches (`cosine_of_mean`),
    how many `items` these are, and the `ridge` chosen.
    """

    metrics: dict[str, float]
    text: TextModel


def fit_content(
    catalog: Catalog,
    items: Mapping[str, ItemDetails],
    encoder: Encoder,
    vectors: NDArray[np.float32],
) -> ContentModel | None:
    """None if too few items of the catalogue have words that others have too.

    vectors (N + 1, D): those of the catalogue.
    """
    documents = [[*words_of(items[item].known)] if item in items else [] for item in catalog.ids]
    items_of = Counter(word for words in documents for word in set(words))
    documents = [[w for w in words if items_of[w] >= _MIN_ITEMS_OF_WORD] for words in documents]
    rows = np.flatnonzero([len(words) > 0 for words in documents]) + 1
    if len(rows) < _MIN_ITEMS:
        return None
    kept = [documents[row - 1] for row in rows]
    directions = _directions(vectors[rows, : encoder.content])
    metrics = _measure(kept, directions)
    terms = np.quantile(vectors[1:, encoder.content :], 0.5, axis=0, method="lower")
    regression = _Regression(kept, directions, metrics["ridge"])
    norm = median_norm(vectors, encoder.content)
    return ContentModel(metrics, regression.text_model(norm, terms.astype(np.float32)))


class _Regression:
    """Directions (n, D) of documents, by their weighted words."""

    def __init__(
        self, documents: Sequence[Sequence[str]], directions: _Directions, ridge: float
    ) -> None:
        # They take a second to import, and few programs that import this fit anything.
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import Ridge

        words = min(_MAX_WORDS, _MAX_WEIGHTS // directions.shape[1])
        self._tfidf: Any = TfidfVectorizer(analyzer=list, max_features=words, dtype=np.float32)
        self._ridge: Any = Ridge(ridge, solver="sparse_cg")
        self._ridge.fit(self._tfidf.fit_transform(documents), directions)

    def predict(self, documents: Sequence[Sequence[str]]) -> _Directions:
        return _directions(self._ridge.predict(self._tfidf.transform(documents)))

    def text_model(self, norm: float, terms: NDArray[np.float32]) -> TextModel:
        """The same, as releases hold it; see there for the arguments."""
        return TextModel(
            {word: int(at) for word, at in self._tfidf.vocabulary_.items()},
            self._tfidf.idf_.astype(np.float32),
            np.ascontiguousarray(self._ridge.coef_.T, np.float32),
            self._ridge.intercept_.astype(np.float32),
            norm,
            terms,
        )


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

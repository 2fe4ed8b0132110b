"""The content model finds vectors that words explain."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge

from index.encoders import Encoder, build_encoder
from index.retrieval.catalog import Catalog
from index.retrieval.delta import median_norm
from index.retrieval.details import Details
from index.retrieval.text_model import words_of
from training.data.item_metadata import ItemDetails
from training.fitting.content_model import fit_content

ITEMS, DIM, TOPICS = 300, 6, 8
WORDS = [f"word{number}" for number in range(TOPICS)]


Planted = tuple[Catalog, dict[str, ItemDetails], NDArray[np.float32]]


def items_of(titles: list[str | None]) -> tuple[Catalog, dict[str, ItemDetails]]:
    ids = [f"item-{row}" for row in range(1, len(titles) + 1)]
    catalog = Catalog(ids, np.ones(len(ids), np.int64), [None] * len(ids), titles)
    return catalog, {item: ItemDetails(t, None) for item, t in zip(ids, titles, strict=True)}


@pytest.fixture
def encoder() -> Encoder:
    return build_encoder("re4", {"dim": DIM, "interests": 2})


@pytest.fixture
def planted() -> Planted:
    """Each vector is the sum of those of its item's two words, longer or shorter, and noise."""
    generator = np.random.default_rng(1)
    topics = generator.standard_normal((TOPICS, DIM))
    pairs = [generator.choice(TOPICS, 2, replace=False) for _ in range(ITEMS)]
    vectors = np.zeros((ITEMS + 1, DIM), np.float32)
    for row, pair in enumerate(pairs, start=1):
        vectors[row] = topics[pair].sum(axis=0) * generator.uniform(0.5, 2)
    vectors[1:] += 0.1 * generator.standard_normal((ITEMS, DIM))
    return *items_of([" ".join(WORDS[at] for at in pair) for pair in pairs]), vectors


def test_words_that_explain_the_vectors_are_found(encoder: Encoder, planted: Planted) -> None:
    catalog, items, vectors = planted
    model = fit_content(catalog, items, encoder, vectors)
    assert model is not None
    assert model.metrics["cosine"] > 0.9
    assert model.metrics["cosine_of_mean"] < 0.5
    assert model.metrics["items"] == 30
    words = {*WORDS[:2]}
    delta = model.text.delta(
        {"new": Details(f"{' '.join(words)}, UNKNOWN"), "none": Details("x"), "nothing": Details()}
    )
    assert delta.ids == ["new"], "without a known word there is no vector"
    [new] = delta.vectors
    same = [row for row in range(1, ITEMS + 1) if {*str(catalog.titles[row - 1]).split()} == words]
    mean = vectors[same].mean(axis=0)
    assert new @ mean / np.linalg.norm(new) / np.linalg.norm(mean) > 0.95
    assert np.linalg.norm(new) == pytest.approx(median_norm(vectors), rel=1e-5)


def test_the_terms_after_the_content_are_those_of_most_items(planted: Planted) -> None:
    encoder = build_encoder("re4", {"dim": DIM - 1, "interests": 2, "item_bias": True})
    catalog, items, vectors = planted
    assert encoder.content == DIM - 1
    model = fit_content(catalog, items, encoder, vectors)
    assert model is not None
    [vector] = model.text.delta({"new": Details(WORDS[0])}).vectors
    assert np.linalg.norm(vector[:-1]) == pytest.approx(median_norm(vectors, DIM - 1), rel=1e-5)
    assert vector[-1] == np.quantile(vectors[1:, -1], 0.5, method="lower")


@pytest.mark.parametrize(
    "titles",
    [
        [None] * ITEMS,
        [f"unique{row}" for row in range(ITEMS)],
        ["a b"] * 10 + [None] * (ITEMS - 10),
    ],
)
def test_too_few_words_make_no_model(
    encoder: Encoder, planted: Planted, titles: list[str | None]
) -> None:
    assert fit_content(*items_of(titles), encoder, planted[2]) is None


def test_the_model_computes_what_scikit_learn_does(encoder: Encoder, planted: Planted) -> None:
    catalog, items, vectors = planted
    model = fit_content(catalog, items, encoder, vectors)
    assert model is not None
    documents = [[*words_of(items[item].known)] for item in catalog.ids]
    tfidf = TfidfVectorizer(analyzer=list, dtype=np.float32)
    ridge = Ridge(model.metrics["ridge"], solver="sparse_cg")
    norms = np.linalg.norm(vectors[1:], axis=1, keepdims=True)
    ridge.fit(tfidf.fit_transform(documents), vectors[1:] / norms)
    titles = ["word1", "word2 word2 word5", "word3 UNKNOWN, word1", *catalog.titles]
    new = {f"new {at}": Details(title) for at, title in enumerate(titles)}
    predicted = ridge.predict(tfidf.transform([[*words_of(each)] for each in new.values()]))
    predicted /= np.linalg.norm(predicted, axis=1, keepdims=True)
    computed = model.text.delta(new).vectors
    np.testing.assert_allclose(computed / model.text.norm, predicted, rtol=0, atol=1e-5)


def test_the_size_of_the_model_is_bounded(
    encoder: Encoder, planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fitting.content_model._MAX_WEIGHTS", 5 * DIM)
    catalog, items, vectors = planted
    model = fit_content(catalog, items, encoder, vectors)
    assert model is not None
    assert model.text.weights.shape == (5, DIM)
    assert len(model.text.words) == 5

"""The content model finds vectors that words explain."""

import numpy as np
import pytest
from numpy.typing import NDArray

from index.encoders import Encoder, build_encoder
from index.retrieval.catalog import Catalog
from index.retrieval.delta import median_norm
from index.retrieval.details import Value
from training.data.item_metadata import ItemDetails
from training.fitting.content_model import fit_content, words_of

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
    delta = model.delta(
        {"new": ItemDetails(f"{' '.join(words)}, UNKNOWN", None), "none": ItemDetails("x", None)}
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
    [vector] = model.delta({"new": ItemDetails(WORDS[0], None)}).vectors
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


def test_each_part_of_an_item_has_words_of_its_own() -> None:
    attributes: dict[str, Value] = {"color": "Red", "tags": ("a b", "c"), "bio": True, "price": 3.0}
    assert [*words_of(ItemDetails("Red wine", "red", ("food",), attributes))] == [
        *("title red", "title wine", "category red", "category food"),
        *("color = Red", "tags = a b", "tags = c", "bio = True"),
    ]

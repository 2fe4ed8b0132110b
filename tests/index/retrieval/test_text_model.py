"""Vectors of items from their words."""

import numpy as np
import pytest

from index.retrieval.details import Details, Value
from index.retrieval.text_model import MAX_CHARACTERS, TextModel, words_of

MODEL = TextModel(
    {"title red": 0, "title wine": 1, "category food": 2},
    idf=np.array([1, 2, 4], np.float32),
    weights=np.array([[1, 0], [0, 1], [-1, 1]], np.float32),
    intercept=np.array([0.5, 0], np.float32),
    norm=3.0,
    terms=np.array([7], np.float32),
)


def test_each_part_of_an_item_has_words_of_its_own() -> None:
    attributes: dict[str, Value] = {"color": "Red", "tags": ("a b", "c"), "bio": True, "price": 3.0}
    attributes["about"] = "a" * MAX_CHARACTERS
    assert [*words_of(Details("Red_wine 2", ["red", "food"], attributes))] == [
        *("title red", "title wine", "title 2", "category red", "category food"),
        *("color = Red", "tags = a b", "tags = c", "bio = True"),
    ]
    assert [*words_of(Details())] == []


def test_a_vector_is_the_norm_times_a_direction_and_then_the_terms() -> None:
    items = {
        "red": Details("Red, red wine"),
        "food": Details("unknown", ["food", "other"]),
        "none": Details("other"),
    }
    delta = MODEL.delta(items)
    assert delta.ids == ["red", "food"]
    assert delta.details_of("food") is items["food"]
    red = np.array([2, 2]) / np.sqrt(8) + [0.5, 0]  # twice red, of weight 1; once wine, of 2
    food = np.array([-1 + 0.5, 1])
    for vector, direction in zip(delta.vectors, (red, food), strict=True):
        expected = [*(3 * direction / np.linalg.norm(direction)), 7]
        np.testing.assert_allclose(vector, expected, rtol=1e-6)


@pytest.mark.parametrize("items", [{}, {"none": Details("nothing known")}])
def test_there_may_be_no_vector(items: dict[str, Details]) -> None:
    delta = MODEL.delta(items)
    assert not delta
    assert delta.vectors.shape == (0, 3)

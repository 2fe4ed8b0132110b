"""Conditions on attributes: what each type of value is compared with, and what is unknown."""

from typing import Any

import numpy as np
import pytest

from index.retrieval.attribute_filter import AttributeFilter, Condition
from index.retrieval.attributes import RowMask, columns_of, mask
from index.retrieval.catalog import Catalog, CatalogError, attributes_of
from index.retrieval.details import Value

ITEMS: list[dict[str, Value]] = [
    {"price": 10.0, "stock": True, "brand": "a", "locale": ("de", "at")},
    {"price": 50.0, "stock": False, "brand": "b", "locale": ("ch",)},
    {"price": 1.0, "brand": "true", "locale": ()},
    {},
]  # rows 1 to 4


def rows(*every: list[Condition], none: list[list[Condition]] | None = None) -> list[int]:
    found = mask(columns_of(ITEMS), AttributeFilter(every, none or []), len(ITEMS))
    return np.flatnonzero(found).tolist()


@pytest.mark.parametrize(
    ("name", "comparison", "expected"),
    [
        ("price", {"lte": 10.0}, [1, 3]),
        ("price", {"lt": 10.0}, [3]),
        ("price", {"gte": 10.0}, [1, 2]),
        ("price", {"gt": 10.0}, [2]),
        ("price", {"gt": 1.0, "lt": 50.0}, [1]),
        ("price", {"any_of": (1.0, 50.0, "10")}, [2, 3]),
        ("price", {"any_of": (10.0,)}, [1]),
        ("price", {"any_of": (True, "a")}, []),  # True is not 1
        ("stock", {"any_of": (True,)}, [1]),
        ("stock", {"any_of": (1.0, 0.0)}, []),
        ("stock", {"any_of": (True, False)}, [1, 2]),
        ("stock", {"lte": 5.0}, []),
        ("brand", {"any_of": ("a", "c", True)}, [1]),
        ("brand", {"gte": 0.0}, []),
        ("brand", {"any_of": ("a",), "gte": 0.0}, []),
        ("locale", {"any_of": ("at", "ch")}, [1, 2]),
        ("colour", {"any_of": ("red",)}, []),
    ],
)
def test_a_condition_holds_for_values_of_its_type(
    name: str, comparison: dict[str, Any], expected: list[int]
) -> None:
    condition = Condition(name, **comparison)
    assert rows([condition]) == expected
    others = [row for row in range(1, 5) if row not in expected]
    assert rows(none=[[condition]]) == others, "an item without the attribute passes a `not`"


def test_groups_are_conjunctions() -> None:
    cheap, stocked = Condition("price", lte=10.0), Condition("stock", any_of=(True,))
    assert rows([cheap, stocked]) == rows([cheap], [stocked]) == [1]
    assert rows([cheap], none=[[stocked]]) == [3]
    assert rows(none=[[cheap, stocked]]) == [2, 3, 4], "only what meets both is left out"
    assert rows() == [1, 2, 3, 4]


def test_a_mask_counts_its_rows_and_penalizes_the_others() -> None:
    allowed = RowMask(np.array([False, True, False]))
    assert allowed.count == 1
    assert allowed.penalties.tolist() == [-np.inf, 0, -np.inf]


def test_attributes_and_the_title_of_a_row() -> None:
    counts = np.array([4, 3, 2, 1])
    titles = ["A", None, "C", "D"]
    catalog = Catalog(list("abcd"), counts, [None] * 4, titles, attributes=columns_of(ITEMS))
    names = ["title", "price", "locale", "colour"]
    assert attributes_of(catalog, names, 1) == {
        "title": "A",
        "price": 10.0,
        "locale": ("de", "at"),
        "colour": None,
    }
    assert attributes_of(catalog, names, 4) == {**dict.fromkeys(names), "title": "D"}
    with pytest.raises(CatalogError, match="attribute 'brand' of 4 items; give one for all 1"):
        Catalog(["a"], counts[:1], [None], [None], attributes=columns_of(ITEMS))

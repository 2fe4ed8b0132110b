"""A catalogue with newer details of some items equals one that was made with them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.retrieval.attribute_filter import AttributeFilter, Condition
from index.retrieval.attributes import columns_of, mask
from index.retrieval.catalog import Catalog, attributes_of
from index.retrieval.details import Value
from index.retrieval.dictionary_encoding import DictionaryEncoded
from index.retrieval.filters import Categories, CategoryFilter
from index.retrieval.patches import patch_categories, patch_details

ITEMS = 6
NAMES = ("price", "stock", "locale", "colour")
VALUES: st.SearchStrategy[Value] = st.one_of(
    st.booleans(),
    st.integers(0, 3).map(float),
    st.sampled_from(["de", "at", "1"]),
    st.lists(st.sampled_from(["de", "at"]), max_size=2).map(tuple),
)
CONDITIONS = [
    Condition("price", lte=1.0),
    Condition("price", (1.0, "1", True)),
    Condition("stock", (True,)),
    Condition("locale", ("de",)),
    Condition("colour", ("de", 2.0)),
    Condition("colour", gte=1.0, lt=3.0),
]


def catalog_of(items: list[dict[str, Value]], **fields: Any) -> Catalog:
    return Catalog(
        ids=[f"item-{row}" for row in range(1, ITEMS + 1)],
        popularity=np.arange(ITEMS, 0, -1),
        **{
            "categories": DictionaryEncoded.of(["a", "b", None, "a", "c", None]),
            "titles": [f"Title {row}" for row in range(1, ITEMS + 1)],
            "attributes": columns_of(items),
            **fields,
        },
    )


RELEASED: list[dict[str, Value]] = [
    {"price": 1.0, "stock": True, "locale": ("de", "at")},
    {"price": 2.0, "stock": False},
    {"stock": True, "locale": ("at",)},
    {"price": 0.0},
    {},
    {"price": 3.0, "stock": True},
]


@given(
    st.dictionaries(
        st.integers(0, ITEMS - 1), st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3)
    )
)
def test_filters_and_attributes_are_those_of_the_newer_values(
    changed: dict[int, dict[str, Value]],
) -> None:
    by_name: dict[str, dict[int, Value]] = {}
    for position, values in changed.items():
        for name, value in values.items():
            by_name.setdefault(name, {})[position] = value
    now = [{**item, **changed.get(at, {})} for at, item in enumerate(RELEASED)]
    patched = patch_details(catalog_of(RELEASED), {2: "Third"}, by_name)

    for condition in CONDITIONS:
        found = mask(patched.attributes, AttributeFilter([[condition]]), ITEMS)
        # Each item alone, as columns of a release have one type.
        alone = [mask(columns_of([item]), AttributeFilter([[condition]]), 1)[1] for item in now]
        assert found[1:].tolist() == alone, condition
    for at, item in enumerate(now):
        expected = {name: item.get(name) for name in NAMES}
        assert attributes_of(patched, NAMES, at + 1) == expected
    assert attributes_of(patched, ["title"], 3) == {"title": "Third"}
    assert attributes_of(patched, ["title"], 2) == {"title": "Title 2"}


@pytest.mark.parametrize("encoded", [True, False])
@pytest.mark.parametrize("others", [[], [(), ("x",), (), (), (), ()]])
@pytest.mark.parametrize("changed", [{0: ["new"], 4: ["b"]}, {1: ["c", "a"], 2: ["new", "b"]}])
def test_categories_are_those_of_the_newer_names(
    encoded: bool, others: list[tuple[str, ...]], changed: dict[int, list[str]]
) -> None:
    names = ["a", "b", None, "a", "c", None]
    given = DictionaryEncoded.of(names) if encoded else names
    catalog = catalog_of(RELEASED, categories=given, other_categories=others)
    patched = patch_categories(catalog, changed)
    now = [
        changed.get(at, [name, *(others[at] if others else ())] if name else [])
        for at, name in enumerate(names)
    ]
    categories = Categories(patched.categories, patched.other_categories)
    rows = np.arange(1, ITEMS + 1)
    for name in ("a", "b", "c", "x", "new", "none"):
        assert categories.have(rows, name).tolist() == [name in each for each in now]
    denied = categories.passes(CategoryFilter(None, ["b"])).take(categories.codes)[1:]
    assert denied.tolist() == ["b" not in each for each in now]
    assert [*patched.categories] == [each[0] if each else None for each in now]
    assert [*catalog.categories] == names, "the release's own are as they were"


def test_the_rows_of_ids_are_kept() -> None:
    catalog = catalog_of(RELEASED)
    patched = patch_details(catalog, {0: "First"}, {})
    assert patched.rows(["item-2", "unknown"]) == [2, 0]
    assert patched.titles[:2] == ["First", "Title 2"]
    assert (len(patched.titles), patched.titles[-6]) == (ITEMS, "First")

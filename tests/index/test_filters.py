"""What a filter lets through."""

import numpy as np
import pytest

from index.filters import Categories, CategoryFilter, Filter

NAMES = ["a", "b", None, "a", "", None, "b", "c"]  # of rows 1 to 8
NOTHING: frozenset[int] = frozenset()


def rows(
    categories: CategoryFilter | None = None,
    excluded: frozenset[int] = NOTHING,
    withdrawn: frozenset[int] = NOTHING,
) -> list[int]:
    known = Categories(NAMES)
    passes = known.passes(categories) if categories else None
    return Filter(known, excluded, withdrawn, passes).rows().tolist()


@pytest.mark.parametrize(
    ("allow", "deny", "left"),
    [
        (None, [], [1, 2, 3, 4, 5, 6, 7, 8]),
        (["a"], [], [1, 4]),
        (["a", "c", "unknown"], [], [1, 4, 8]),
        ([], [], []),
        (["unknown"], [], []),
        (None, ["a"], [2, 3, 5, 6, 7, 8]),
        (None, ["a", "b", "c", "unknown"], [3, 5, 6]),
        (["a", "b"], ["b"], [1, 4]),
        ([""], [], [5]),
    ],
)
def test_items_without_a_category_pass_deny_and_fail_allow(
    allow: list[str] | None, deny: list[str], left: list[int]
) -> None:
    assert rows(CategoryFilter(allow, deny)) == left
    known = Categories(NAMES)
    assert known.size(known.passes(CategoryFilter(allow, deny))) == len(left)


def test_excluded_and_withdrawn_rows_are_left_out() -> None:
    assert rows(excluded=frozenset({1, 8}), withdrawn=frozenset({2, 8})) == [3, 4, 5, 6, 7]
    assert rows(CategoryFilter(["a", "b"]), frozenset({1}), frozenset({7})) == [2, 4]


def test_the_first_places_that_are_allowed() -> None:
    known = Categories(NAMES)
    allowed = Filter(known, frozenset({4}), frozenset({1}), known.passes(CategoryFilter(["a"])))
    plain = Filter(known, frozenset({4}), frozenset({1}), None)
    ranking = np.array([4, 1, 8, 0, 3, 2])

    assert allowed.first(ranking, 5) == []
    assert plain.first(ranking, 5) == [2, 4, 5]
    assert plain.first(ranking, 2) == [2, 4]


def test_popular_items_are_the_first_rows_that_are_allowed() -> None:
    known = Categories(NAMES)
    plain = Filter(known, frozenset({1}), frozenset({3}), None)
    assert plain.most_popular(3).tolist() == [2, 4, 5]
    assert plain.most_popular(100).tolist() == [2, 4, 5, 6, 7, 8]
    without_a = known.passes(CategoryFilter(None, ["a"]))
    filtered = Filter(known, frozenset({2}), frozenset({3}), without_a)
    assert filtered.most_popular(2).tolist() == [5, 6]


def test_a_catalogue_without_categories_is_allowed_or_not_as_a_whole() -> None:
    known = Categories([None] * 5)
    denied = known.passes(CategoryFilter(None, ["a"]))
    assert Filter(known, NOTHING, NOTHING, denied).rows().tolist() == [1, 2, 3, 4, 5]
    allowed = known.passes(CategoryFilter(["a"]))
    assert Filter(known, NOTHING, NOTHING, allowed).rows().tolist() == []

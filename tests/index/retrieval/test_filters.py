"""The rows that a filter allows."""

import numpy as np
import pytest

from index.retrieval.attributes import RowMask
from index.retrieval.filters import Categories, CategoryFilter, Filter

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
    ("allow", "deny", "allowed_rows"),
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
    allow: list[str] | None, deny: list[str], allowed_rows: list[int]
) -> None:
    assert rows(CategoryFilter(allow, deny)) == allowed_rows
    known = Categories(NAMES)
    assert known.size(known.passes(CategoryFilter(allow, deny))) == len(allowed_rows)


def test_excluded_and_withdrawn_rows_are_left_out() -> None:
    assert rows(excluded=frozenset({1, 8}), withdrawn=frozenset({2, 8})) == [3, 4, 5, 6, 7]
    assert rows(CategoryFilter(["a", "b"]), frozenset({1}), frozenset({7})) == [2, 4]


@pytest.mark.parametrize("some_rows", [[1, 2, 3, 4, 5, 6, 7, 8], [2, 4, 7], [8], []])
def test_given_rows_are_filtered_like_all_rows(some_rows: list[int]) -> None:
    known = Categories(NAMES)
    passes = known.passes(CategoryFilter(None, ["b"]))
    for excluded, withdrawn, passing in [
        (NOTHING, NOTHING, None),
        (frozenset({1, 8}), NOTHING, None),
        (frozenset({1, 8, 99}), frozenset({2, 4, 99}), None),  # 99: an item of a delta
        (NOTHING, NOTHING, passes),
        (frozenset({4}), frozenset({5}), passes),
    ]:
        allowed = Filter(known, excluded, withdrawn, passing)
        allowed_rows = set(allowed.rows().tolist())
        assert allowed.filter_rows(np.array(some_rows, np.int64)).tolist() == [
            r for r in some_rows if r in allowed_rows
        ]
        scores = np.arange(8, dtype=np.float32)
        allowed.mask_scores(scores)
        assert (np.flatnonzero(scores > -np.inf) + 1).tolist() == sorted(allowed_rows)
        assert (scores[[row - 1 for row in allowed_rows]] == [r - 1 for r in allowed_rows]).all()
        assert bool(allowed) == (len(allowed_rows) < 8)


def test_popular_items_are_the_first_allowed_rows() -> None:
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


def test_any_of_several_categories_is_allowed_or_denied() -> None:
    known = Categories(["a", "b", None, "a", "b"], [["b", "c"], [], [], [], ["a"]])
    rows = np.arange(1, 6)

    def allowed(**given: list[str]) -> list[int]:
        passes = known.passes(CategoryFilter(**given))
        left = Filter(known, frozenset(), frozenset(), passes)
        assert left.passing == len(left.filter_rows(rows))
        return left.filter_rows(rows).tolist()

    assert allowed(allow=["a"]) == [1, 4, 5]
    assert allowed(allow=["c"]) == [1]
    assert allowed(allow=["b", "c"]) == [1, 2, 5]
    assert allowed(deny=["b"]) == [3, 4]
    assert allowed(allow=["a"], deny=["c"]) == [4, 5]
    assert allowed(deny=["none"]) == [1, 2, 3, 4, 5]
    # Diversity tells items by their first category.
    assert known.first.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_most_popular_of_a_rare_category_are_found(count: int) -> None:
    known = Categories([*NAMES, *["b"] * 200, "c", "c"])
    passes = known.passes(CategoryFilter(["c"]))
    rare = Filter(known, frozenset({8}), NOTHING, passes)
    assert rare.most_popular(count).tolist() == [209, 210][:count]
    assert Filter(known, NOTHING, NOTHING, passes).most_popular(count).tolist() == [
        *[8, 209, 210][:count]
    ]


@pytest.mark.parametrize("withdrawn", [NOTHING, frozenset({2, 3})])
def test_masked_rows_are_left_out(withdrawn: frozenset[int]) -> None:
    passes = np.array([False, True, True, False, False, False, False, True, True])
    allowed = Filter(Categories(NAMES), frozenset({8}), withdrawn, None, RowMask(passes))
    expected = [row for row in (1, 2, 7) if row not in withdrawn]
    assert allowed
    assert allowed.rows().tolist() == expected
    assert allowed.filter_rows(np.array([2, 3, 7])).tolist() == [r for r in expected if r > 1]
    assert allowed.most_popular(2).tolist() == expected[:2]
    assert allowed.passing == 4
    assert allowed.exclude(np.zeros(8, np.float32), np.arange(1, 9)) is None


def test_a_tenth_of_the_items_are_few() -> None:
    def passes_few(count: int) -> bool:
        mask = RowMask(np.arange(101) > 100 - count)
        return Filter(Categories(["a"] * 100), NOTHING, NOTHING, None, mask).passes_few

    assert passes_few(0)
    assert passes_few(10)
    assert not passes_few(11)

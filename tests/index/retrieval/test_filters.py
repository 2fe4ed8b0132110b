"""What a filter lets through."""

import numpy as np
import pytest

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


@pytest.mark.parametrize("asked", [[1, 2, 3, 4, 5, 6, 7, 8], [2, 4, 7], [8], []])
def test_rows_that_are_asked_about_are_struck_out_as_all_are(asked: list[int]) -> None:
    known = Categories(NAMES)
    passes = known.passes(CategoryFilter(None, ["b"]))
    for excluded, withdrawn, passing in [
        (NOTHING, NOTHING, None),
        (frozenset({1, 8}), NOTHING, None),
        (frozenset({1, 8, 99}), frozenset({2, 4, 99}), None),  # 99: of items beside the catalogue
        (NOTHING, NOTHING, passes),
        (frozenset({4}), frozenset({5}), passes),
    ]:
        each = Filter(known, excluded, withdrawn, passing)
        left = set(each.rows().tolist())
        assert each.filter_rows(np.array(asked, np.int64)).tolist() == [
            r for r in asked if r in left
        ]
        scores = np.arange(8, dtype=np.float32)
        each.mask_scores(scores)
        assert [row for row, score in enumerate(scores, 1) if score > -np.inf] == sorted(left)
        assert (scores[[row - 1 for row in left]] == [row - 1 for row in left]).all()
        assert bool(each) == (len(left) < 8)


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

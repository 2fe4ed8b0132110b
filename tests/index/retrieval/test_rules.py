"""Business rules of a query, on catalogues that an oracle can rank whole."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.release.reading import open_release
from index.retrieval.attribute_filter import AttributeFilter, Condition
from index.retrieval.attributes import columns_of
from index.retrieval.boosts import Boost, BoostGroups, unit_of
from index.retrieval.corpus import Corpus
from index.retrieval.delta import Delta
from index.retrieval.details import Details
from index.retrieval.diversity import POOL_FACTOR
from index.retrieval.filters import Categories, CategoryFilter
from index.retrieval.minimums import with_minimums
from index.retrieval.query import Answer, Query
from index.retrieval.quota import DEPTH, within_quota
from index.retrieval.retriever import Retriever
from index.retrieval.rules import Rules

ITEMS = 200
HISTORY = ["item-3", "item-9", "item-1"]
EVEN = AttributeFilter([[Condition("even", (True,))]])
NOT_EVEN = AttributeFilter([], [[Condition("even", (True,))]])
LATE = AttributeFilter([[Condition("row", gte=150.0)]])


@pytest.fixture
def retriever(make_draft: Callable[..., Path]) -> Retriever:
    """A third without a category, the others of two categories, as rows modulo three."""
    given = open_release(make_draft(items=ITEMS)).retriever
    attributes = [{"row": float(row), "even": row % 2 == 0} for row in range(1, ITEMS + 1)]
    return replace(given, catalog=replace(given.catalog, attributes=columns_of(attributes)))


def ask(retriever: Retriever, rules: Rules | None = None, **query: object) -> Answer:
    fields = {"history": HISTORY, "k": 20, "rules": rules or Rules(), **query}
    [answer] = retriever.recommend([Query(**fields)])
    return answer


@pytest.mark.parametrize("history", [HISTORY, []], ids=["interests", "popular"])
def test_the_ranking_is_that_of_all_items_with_their_boosts(
    retriever: Retriever, history: list[str]
) -> None:
    k, everything = 8, ask(retriever, history=history, k=ITEMS)
    pool = ask(retriever, history=history, k=POOL_FACTOR * k).scores
    boosts = [Boost(EVEN, 0.25), Boost(LATE, 8.0), Boost(NOT_EVEN, -0.5)]
    rows = everything.rows
    total = np.where(rows % 2 == 0, 0.25, -0.5) + np.where(rows >= 150, 8.0, 0.0)
    added = (total * (pool[0] - pool[-1])).astype(np.float32)
    order = np.lexsort((rows, -(everything.scores + added)))[:k]

    answer = ask(retriever, Rules(boosts), history=history, k=k)

    np.testing.assert_array_equal(answer.rows, rows[order])
    np.testing.assert_allclose(answer.scores, (everything.scores + added)[order], rtol=1e-6)
    assert answer.boosts is not None
    np.testing.assert_allclose(answer.boosts, added[order], rtol=1e-6)
    assert answer.rows.max() >= 150, "found though it is in no pool of the scores alone"


def test_a_boost_of_one_lifts_the_last_of_the_pool_to_its_first(retriever: Retriever) -> None:
    pool = ask(retriever, k=POOL_FACTOR * 5)
    last = AttributeFilter([[Condition("row", (float(pool.rows[-1]),))]])
    answer = ask(retriever, Rules([Boost(last, 1.0)]), k=5)
    assert {int(pool.rows[0]), int(pool.rows[-1])} <= set(answer.rows.tolist())
    assert answer.scores[0] == pytest.approx(answer.scores[1], rel=1e-5)
    assert ask(retriever, Rules([Boost(last, -1.0)]), k=5).rows.tolist() == pool.rows[:5].tolist()


def test_a_boost_that_no_item_gets_changes_nothing(retriever: Retriever) -> None:
    nothing = AttributeFilter([[Condition("colour", ("red",))]])
    answer, plain = ask(retriever, Rules([Boost(nothing, 1.0)])), ask(retriever)
    np.testing.assert_array_equal(answer.rows, plain.rows)
    np.testing.assert_array_equal(answer.scores, plain.scores)
    assert answer.boosts is not None
    assert not answer.boosts.any()


def test_the_explanation_has_scores_without_boosts(retriever: Retriever) -> None:
    answer = ask(retriever, Rules([Boost(EVEN, 3.0)]), explain=True)
    assert answer.explanation is not None
    assert answer.boosts is not None
    best = answer.explanation.scores.max(axis=1)
    np.testing.assert_allclose(best + answer.boosts, answer.scores, rtol=1e-5)


@pytest.mark.parametrize("even", [True, False, None])
def test_an_item_of_a_delta_has_the_boosts_of_its_attributes(
    retriever: Retriever, even: bool | None
) -> None:
    best = int(ask(retriever).rows[0])
    details = {} if even is None else {"new": Details(attributes={"even": even})}
    delta = Delta(["new"], retriever.vectors[best][None].copy(), details)
    for attributes, is_raised in ((EVEN, even is True), (NOT_EVEN, even is not True)):
        query = Query(HISTORY, ITEMS, rules=Rules([Boost(attributes, 3.0)]))
        [answer] = retriever.recommend([query], delta=delta)
        assert answer.boosts is not None
        added = dict(zip(answer.rows.tolist(), answer.boosts.tolist(), strict=True))
        assert added[ITEMS + 1] == (max(added.values()) if is_raised else 0)


def test_a_boost_where_no_item_is_allowed_finds_none(retriever: Retriever) -> None:
    nobody = CategoryFilter(["nobody's"])
    assert not len(ask(retriever, Rules([Boost(EVEN, 1.0)]), categories=nobody).rows)


@pytest.mark.parametrize("quota", [1, 3, 7, 50])
def test_each_interest_has_at_most_its_quota(retriever: Retriever, quota: int) -> None:
    everything = ask(retriever, k=ITEMS)
    left = dict.fromkeys(range(retriever.encoder.interests), quota)
    expected = []
    for row, interest in zip(everything.rows.tolist(), everything.interests.tolist(), strict=True):
        if left[interest]:
            left[interest] -= 1
            expected.append(row)
    answer = ask(retriever, Rules(interest_quota=quota))
    assert answer.rows.tolist() == expected[:20]
    diverse = ask(retriever, Rules(interest_quota=quota), diversity=0.7)
    assert max(Counter(diverse.interests.tolist()).values()) <= quota
    assert len(diverse.rows) == len(answer.rows)
    popular = ask(retriever, Rules(interest_quota=quota), history=[])
    assert popular.rows.tolist() == ask(retriever, history=[]).rows.tolist()


@pytest.mark.parametrize("history", [HISTORY, []], ids=["interests", "popular"])
@pytest.mark.parametrize("diversity", [0.0, 0.5])
def test_categories_have_their_minimum(
    retriever: Retriever, history: list[str], diversity: float
) -> None:
    minimums = {"category 1": 12, "category 2": 5, "unknown": 3}
    answer = ask(retriever, Rules(min_per_category=minimums), history=history, diversity=diversity)
    kinds = Counter(retriever.catalog.categories[row - 1] for row in answer.rows.tolist())
    assert kinds["category 1"] >= 12
    assert kinds["category 2"] >= 5
    assert len(set(answer.rows.tolist())) == 20
    if not diversity:
        assert (np.diff(answer.scores) <= 0).all()
    plain = ask(retriever, history=history, diversity=diversity)
    for name in ("category 1", "category 2"):
        of_kind = [row for row in answer.rows if retriever.catalog.categories[row - 1] == name]
        only = CategoryFilter([name])
        best = ask(retriever, history=history, categories=only, k=len(of_kind))
        if not diversity:
            assert set(of_kind) == set(best.rows.tolist()), "the best of the category"
    assert len(set(plain.rows.tolist()) - set(answer.rows.tolist())) <= 12 + 5


def test_a_minimum_obeys_the_filter_and_goes_beyond_a_quota(retriever: Retriever) -> None:
    rules = Rules(interest_quota=1, min_per_category={"category 1": 10})
    answer = ask(retriever, rules, attributes=EVEN, k=10)
    assert len(answer.rows) == 10
    assert {retriever.catalog.categories[row - 1] for row in answer.rows.tolist()} == {"category 1"}
    assert (answer.rows % 2 == 0).all()
    none = ask(retriever, rules, categories=CategoryFilter(None, ["category 1"]), k=10)
    assert len(none.rows) <= retriever.encoder.interests


@pytest.mark.parametrize("history", [HISTORY, []], ids=["interests", "popular"])
@pytest.mark.parametrize("diversity", [0.0, 0.5])
@pytest.mark.parametrize("boosts", [(), (Boost(EVEN, 0.5),)], ids=["plain", "boosted"])
def test_new_items_have_their_minimum(
    retriever: Retriever, history: list[str], diversity: float, boosts: Sequence[Boost]
) -> None:
    vectors = np.tile(-retriever.vectors[3:4], (30, 1)) * np.linspace(0.01, 0.02, 30)[:, None]
    delta = Delta(
        [f"new-{at}" for at in range(30)],
        vectors.astype(np.float32),
        {f"new-{at}": Details(None, ["of its own"]) for at in range(0, 30, 2)},
    )

    def asked(**query: object) -> Answer:
        fields = {"history": history, "k": 20, "diversity": diversity, **query}
        [answer] = retriever.recommend([Query(**fields)], delta=delta)
        return answer

    plain = asked(rules=Rules(boosts))
    assert not (plain.rows > ITEMS).any()
    answer = asked(rules=Rules(boosts, min_new_items=6), exclude=["new-3"])
    new = [row for row in answer.rows.tolist() if row > ITEMS]
    assert len(answer.rows) == 20
    assert set(answer.rows.tolist()) - set(plain.rows.tolist()) == {*new}
    assert ITEMS + 1 + 3 not in new
    everything = asked(rules=Rules(boosts), k=ITEMS + 30, exclude=["new-3"], diversity=0)
    best = [row for row in everything.rows.tolist() if row > ITEMS][:6]
    assert sorted(new) == sorted(best), "the best of them"
    if not diversity:
        assert (np.diff(answer.scores) <= 0).all()

    with_quota = Rules(boosts, 1, {"of its own": 4}, min_new_items=6)
    both = asked(rules=with_quota, categories=CategoryFilter(None, ["category 1"]))
    new = [row - ITEMS - 1 for row in both.rows.tolist() if row > ITEMS]
    assert len(new) == 6
    assert sum(at % 2 == 0 for at in new) >= 4
    few = asked(rules=Rules(boosts, min_new_items=20), exclude=delta.ids[:25])
    assert sum(row > ITEMS for row in few.rows.tolist()) == 5
    assert len(few.rows) == 20


def test_without_new_items_their_minimum_changes_nothing(retriever: Retriever) -> None:
    answer = ask(retriever, Rules(min_new_items=5))
    assert answer.rows.tolist() == ask(retriever).rows.tolist()


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.integers(1, 8),
    st.integers(1, 12),
)
def test_a_quota_takes_what_a_walk_down_the_ranking_takes(
    interests: list[int], quota: int, count: int
) -> None:
    found_by = np.array(interests)
    rows, scores = np.arange(1, len(found_by) + 1), -np.arange(len(found_by), dtype=np.float32)

    def ranking(depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return rows[:depth], scores[:depth], found_by[:depth]

    taken: list[int] = []
    for row, interest in zip(rows.tolist(), interests[: DEPTH * count], strict=False):
        if sum(interests[r - 1] == interest for r in taken) < quota:
            taken.append(row)
    kept = within_quota(ranking(count), ranking, quota, count, 4)
    assert kept[0].tolist() == taken[:count]


@given(st.data())
def test_minimums_are_met_as_far_as_items_allow(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sets(st.sampled_from("abc")), min_size=1, max_size=30))
    k = data.draw(st.integers(1, 12))
    minimums: Mapping[str, int] = data.draw(
        st.dictionaries(st.sampled_from("abcd"), st.integers(1, 6)).filter(
            lambda drawn: sum(drawn.values()) <= k
        )
    )
    rows = np.arange(1, len(kinds) + 1)
    scores = -rows.astype(np.float32)

    def are_of(given: np.ndarray, name: str) -> np.ndarray:
        return np.array([name in kinds[row - 1] for row in given.tolist()], np.bool_)

    def best(name: str, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = rows[are_of(rows, name)][:count]
        return found, scores[found - 1], found % 3

    chosen = rows[:k], scores[:k], rows[:k] % 3
    answer = with_minimums(chosen, minimums, best, are_of, k)[0].tolist()
    assert len(answer) == len(set(answer)) == min(k, len(rows))
    for name, least in minimums.items():
        possible = sum(name in of_item for of_item in kinds)
        assert sum(name in kinds[row - 1] for row in answer) >= min(least, possible)
    if not minimums:
        assert answer == rows[:k].tolist()


def test_items_are_grouped_by_the_sum_of_their_boosts(retriever: Retriever) -> None:
    boosts = [Boost(EVEN, 1.0), Boost(LATE, 1.0), Boost(NOT_EVEN, 1.0)]
    delta = Delta(["new"], retriever.vectors[:1], {"new": Details(attributes={"row": 300.0})})
    catalog = retriever.catalog
    groups = BoostGroups.of(boosts, Corpus(catalog, Categories(catalog.categories), delta))
    added = groups.added(np.array([1, 2, 149, 150, 151, ITEMS + 1]), unit=2.0)
    assert added.tolist() == [2, 2, 2, 4, 4, 4]


def test_the_unit_is_one_where_scores_do_not_differ() -> None:
    assert unit_of(np.array([3, 3], np.float32)) == 1
    assert unit_of(np.array([], np.float32)) == 1
    assert unit_of(np.array([5, 4, 2], np.float32)) == 3

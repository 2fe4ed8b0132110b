"""Cold-start items: their vectors, and search beside the catalogue."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.encoders import build_encoder
from index.release.reading import open_release
from index.retrieval.attribute_filter import AttributeFilter, Condition
from index.retrieval.delta import (
    CONTEXT_ITEMS,
    WORDS_WEIGHT,
    Delta,
    cold_start_vector,
    median_norm,
    user_context,
    with_words,
)
from index.retrieval.details import Details
from index.retrieval.filters import CategoryFilter
from index.retrieval.query import Answer, Query
from index.retrieval.retriever import Retriever

MakeDraft = Callable[..., Path]
HISTORY = ["item-3", "item-9", "item-1"]
NEW = 30


@pytest.fixture
def retriever(make_draft: MakeDraft) -> Retriever:
    return open_release(make_draft(items=200)).retriever


@pytest.fixture
def delta(retriever: Retriever) -> Delta:
    """With the distribution of the catalogue's vectors, so that new items rank everywhere."""
    vectors = np.random.default_rng(5).permutation(retriever.vectors[1:])[:NEW] * 1.001
    return Delta([f"new-{position}" for position in range(NEW)], vectors)


def ask(retriever: Retriever, delta: Delta | None, **query: object) -> Answer:
    [answer] = retriever.recommend([Query(**{"history": HISTORY, **query})], delta=delta)
    return answer


def ids(retriever: Retriever, delta: Delta, answer: Answer) -> list[str]:
    all_ids = [*retriever.catalog.ids, *delta.ids]
    return [all_ids[row - 1] for row in answer.rows.tolist()]


def oracle(retriever: Retriever, delta: Delta, excluded: Iterable[str], k: int) -> list[str]:
    """The k best of all items, known and new, by brute force."""
    interests = retriever.encode([retriever.catalog.rows(HISTORY)])[0]
    vectors = np.concatenate([retriever.vectors[1:], delta.vectors])
    scores = (vectors @ interests.T).max(axis=1)
    all_ids = [*retriever.catalog.ids, *delta.ids]
    ranking = [all_ids[position] for position in np.argsort(-scores, kind="stable")]
    return [item for item in ranking if item not in set(excluded)][:k]


@pytest.mark.parametrize("k", [1, 20, 230])
def test_new_items_are_ranked_by_score(retriever: Retriever, delta: Delta, k: int) -> None:
    answer = ask(retriever, delta, k=k)
    assert ids(retriever, delta, answer) == oracle(retriever, delta, HISTORY, k)
    assert (np.diff(answer.scores) <= 0).all()
    interests = retriever.encode([retriever.catalog.rows(HISTORY)])[0]
    vectors = np.concatenate([retriever.vectors[1:], delta.vectors])
    found_by = (vectors[answer.rows - 1] @ interests.T).argmax(axis=1)
    assert answer.interests.tolist() == found_by.tolist()


def test_new_items_can_be_excluded(retriever: Retriever, delta: Delta) -> None:
    best = [item for item in oracle(retriever, delta, [], 230) if item.startswith("new-")]
    excluded = ask(retriever, delta, k=50, exclude=[best[0], best[1], "nobody"])
    expected = oracle(retriever, delta, [*HISTORY, *best[:2]], 50)
    assert ids(retriever, delta, excluded) == expected
    query = {"history": [*HISTORY, best[0]], "exclude": [best[1], "nobody"], "k": 230}
    assert best[0] not in ids(retriever, delta, ask(retriever, delta, **query))
    seen = ids(retriever, delta, ask(retriever, delta, exclude_seen=False, **query))
    assert best[0] in seen
    assert best[1] not in seen
    fewer = delta.without({best[0], "nobody"})
    assert best[0] not in fewer.ids
    assert len(fewer) == NEW - 1
    assert delta.without({"nobody"}) is delta


def test_a_new_item_of_which_nothing_is_known_has_no_category(
    retriever: Retriever, delta: Delta
) -> None:
    allowed = ask(retriever, delta, k=200, categories=CategoryFilter(["category 1"]))
    assert (allowed.rows <= 200).all()
    denied = ask(retriever, delta, k=230, categories=CategoryFilter(None, ["category 1"]))
    assert np.count_nonzero(denied.rows > 200) == NEW


DETAILS = {
    "new-1": Details(None, ["category 1"], {"price": 3.0}),
    "new-2": Details(None, ["category new", "category 1"], {"price": "low"}),
    "new-4": Details(None, ["category new"], {"price": 9.0, "sale": True}),
}
CHEAP = AttributeFilter([[Condition("price", lte=5.0)]])
NOT_CHEAP = AttributeFilter([], CHEAP.every)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"categories": CategoryFilter(["category 1"])}, {1, 2}),
        ({"categories": CategoryFilter(["category new"])}, {2, 4}),
        (
            {"categories": CategoryFilter(None, ["category new", "nobody's"])},
            {*range(NEW)} - {2, 4},
        ),
        ({"categories": CategoryFilter(["category 1"], ["category new"])}, {1}),
        ({"attributes": CHEAP}, {1}),
        ({"attributes": NOT_CHEAP}, {*range(NEW)} - {1}),
        ({"attributes": AttributeFilter([[Condition("price", ("low", 9.0))]])}, {2, 4}),
        ({"attributes": CHEAP, "categories": CategoryFilter(["category new"])}, set()),
        ({"attributes": NOT_CHEAP, "categories": CategoryFilter(["category new"])}, {2, 4}),
    ],
)
@pytest.mark.parametrize("history", [HISTORY, ["nobody"]], ids=["interests", "popular"])
def test_filters_know_the_details_of_new_items(
    retriever: Retriever,
    delta: Delta,
    history: list[str],
    filters: dict[str, object],
    found: set[int],
) -> None:
    detailed = replace(delta, details=DETAILS)
    answer = ask(retriever, detailed, history=history, k=230, **filters)
    assert {row - 201 for row in answer.rows.tolist() if row > 200} == found
    known = ask(retriever, None, history=history, k=230, **filters)
    assert set(known.rows.tolist()) == {row for row in answer.rows.tolist() if row <= 200}


def test_new_items_of_one_category_take_turns_with_the_catalogues(
    retriever: Retriever, delta: Delta
) -> None:
    """Also where the catalogue has no item of it."""
    names = [None, "category 1", "category new"]
    details = {f"new-{at}": Details(None, [names[at % 3] or ""]) for at in range(NEW) if at % 3}
    answer = ask(retriever, replace(delta, details=details), k=200, diversity=1.0)
    of_catalog = retriever.catalog.categories
    kinds = [
        of_catalog[row - 1] if row <= 200 else names[(row - 201) % 3]
        for row in answer.rows[:40].tolist()
    ]
    assert [*Counter(kinds).values()] == [10, 10, 10, 10]


def test_new_items_are_diversified_and_explained(retriever: Retriever, delta: Delta) -> None:
    answer = ask(retriever, delta, k=40, diversity=0.5, explain=True)
    new = answer.rows > 200
    assert new.any()
    assert answer.explanation is not None
    best = answer.explanation.scores.max(axis=1)
    np.testing.assert_allclose(best, answer.scores, rtol=1e-5)


def test_new_items_in_a_history_are_encoded_like_known_items(
    retriever: Retriever, delta: Delta
) -> None:
    twins = Delta(["twin"], retriever.vectors[[9]])
    answer = ask(retriever, twins, history=["item-3", "twin"], exclude=["item-9"], explain=True)
    same = ask(retriever, twins, history=["item-3", "item-9"], exclude=["twin"], explain=True)
    assert answer.source == "interests"
    assert answer.rows.tolist() == same.rows.tolist()
    np.testing.assert_allclose(answer.scores, same.scores, rtol=1e-6)
    assert (answer.unknown, same.unknown) == (1, 0), "of the catalogue"
    assert answer.explanation is not None
    assert {row for attended in answer.explanation.attended for row, _ in attended} == {3, 201}


def test_a_history_of_only_new_items_is_enough(retriever: Retriever, delta: Delta) -> None:
    answer = ask(retriever, delta, history=["new-1", "nobody"])
    assert answer.source == "interests"
    assert answer.unknown == 2
    assert 200 + 1 + 1 not in answer.rows, "it was seen"
    assert ask(retriever, None, history=["new-1"]).source == "popular"
    assert ask(retriever, delta, history=["nobody"]).source == "popular"


def test_an_encoder_with_its_own_table_encodes_new_items(
    retriever: Retriever, delta: Delta
) -> None:
    """Its table has no row for new items."""
    encoder = build_encoder("timirec", {"items": 200, "dim": retriever.encoder.dim}).eval()
    answer = ask(replace(retriever, encoder=encoder), delta, history=["item-1", "new-1"])
    assert answer.source == "interests"
    assert np.isfinite(answer.scores).all()


def test_items_similar_to_a_new_item_are_catalogue_items(
    retriever: Retriever, delta: Delta
) -> None:
    found = retriever.similar("new-2", 10, delta=delta)
    assert found is not None
    scores = retriever.vectors[1:] @ (delta.vectors[2] / np.linalg.norm(delta.vectors[2]))
    assert found[0].tolist() == (1 + (-scores).argsort()[:10]).tolist()
    assert retriever.similar("new-2", 10) is None
    assert retriever.similar("nobody", 10, delta=delta) is None


def test_an_unknown_history_gets_popular_items_and_then_new_ones(
    retriever: Retriever, delta: Delta
) -> None:
    answer = ask(retriever, delta, history=["nobody"], k=210, exclude=["new-3"])
    assert answer.source == "popular"
    assert answer.rows.tolist() == [*range(1, 204), *range(205, 212)]
    assert (answer.scores[200:] == 0).all()
    assert (answer.interests == -1).all()


def test_a_new_item_has_the_direction_of_its_users_contexts(retriever: Retriever) -> None:
    vectors = retriever.vectors

    def mean_of(rows: list[int]) -> NDArray[np.float32]:
        mean: NDArray[np.float32] = vectors[rows].mean(axis=0)
        return mean / np.linalg.norm(mean)

    assert CONTEXT_ITEMS == 3
    np.testing.assert_allclose(user_context(vectors, [9, 1, 2, 3]), mean_of([1, 2, 3]), rtol=1e-6)
    contexts = [user_context(vectors, rows) for rows in ([5], [6, 7])]
    norm = median_norm(vectors)
    assert norm == pytest.approx(np.median(np.linalg.norm(vectors[1:], axis=1)))
    vector = cold_start_vector(contexts, norm)
    assert np.linalg.norm(vector) == pytest.approx(norm, rel=1e-6)
    np.testing.assert_allclose(
        vector / norm, (a := mean_of([5]) + mean_of([6, 7])) / np.linalg.norm(a), rtol=1e-5
    )


def test_terms_after_the_content_of_a_new_item_are_those_of_most_of_its_contexts() -> None:
    """A bias, then one of two parts: never a fraction of a part."""
    vectors = np.array([[0, 0, 0, 0], [2, 1, 1, 0], [4, 3, 1, 0], [6, 9, 0, 1]], np.float32)
    assert median_norm(vectors, 1) == 4
    contexts = [user_context(vectors, rows, 1) for rows in ([1, 2, 3], [3], [2, 1])]
    np.testing.assert_array_equal(contexts, [[1, 3, 1, 0], [1, 9, 0, 1], [1, 1, 1, 0]])
    np.testing.assert_array_equal(cold_start_vector(contexts, 5.0, 1), [5, 3, 1, 0])
    in_no_part = cold_start_vector(contexts[:2], 5.0, 1)
    np.testing.assert_array_equal(in_no_part, [5, 3, 0, 0])


def test_words_count_as_some_users_and_change_neither_lengths_nor_terms() -> None:
    taken = Delta(["a", "b"], np.array([[2, 0, 7], [0, 3, 8]], np.float32), {"a": Details("A")})
    words = Delta(["c", "a"], np.array([[1, 1, 1], [0, 2, 1]], np.float32))
    mixed = with_words(taken, {"a": 5, "b": 1}, words, 2)
    assert WORDS_WEIGHT == 5
    np.testing.assert_allclose(mixed.vectors, [[2**0.5, 2**0.5, 7], [0, 3, 8]], rtol=1e-6)
    assert (mixed.ids, mixed.details) == (taken.ids, taken.details)
    many = with_words(taken, {"a": 5000, "b": 1}, words, 2)
    np.testing.assert_allclose(many.vectors[0], [2, 0.002, 7], rtol=1e-3)
    assert with_words(taken, {"a": 1, "b": 1}, words.only({"c"}, 1), 2) is taken


def test_parts_of_deltas_are_joined() -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    delta = Delta(["a", "b", "c"], vectors)
    part = delta.only({"c", "a", "none"}, 5)
    assert part.ids == ["a", "c"]
    np.testing.assert_array_equal(part.vectors, vectors[[0, 2]])
    assert delta.only({"c", "a"}, 1).ids == ["a"]
    known = replace(delta, details={"a": Details("A"), "b": Details("B")})
    assert known.only({"b"}, 1).joined(part).details_of("b") == Details("B")
    assert known.only({"c"}, 1).details_of("c") == Details()
    joined = delta.only({"b"}, 1).joined(part)
    assert joined.ids == ["b", "a", "c"]
    np.testing.assert_array_equal(joined.vectors, vectors[[1, 0, 2]])
    assert Delta.of({}).joined(part) is part

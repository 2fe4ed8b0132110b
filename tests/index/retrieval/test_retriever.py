"""What the retriever makes of a query: filters, popular items, diversity, explanations, union."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.release.manifest import read_manifest, write_manifest
from index.release.reading import open_release
from index.retrieval.diversity import POOL_FACTOR
from index.retrieval.filters import CategoryFilter
from index.retrieval.query import Answer, Query
from index.retrieval.retriever import Retriever

MakeDraft = Callable[..., Path]
HISTORY = ["item-3", "item-9", "item-3", "item-1"]


@pytest.fixture
def retriever(make_draft: MakeDraft) -> Retriever:
    """With 200 items: a third without a category, the others of two categories."""
    return open_release(make_draft(items=200)).retriever


def ask(retriever: Retriever, *withdrawn: int, **query: object) -> Answer:
    fields = {"history": HISTORY, "k": 20, **query}
    [answer] = retriever.recommend([Query(**fields)], None, frozenset(withdrawn))
    return answer


def ids(retriever: Retriever, answer: Answer) -> list[str]:
    return [retriever.catalog.id(row) for row in answer.rows.tolist()]


def kinds(retriever: Retriever, answer: Answer) -> list[str | None]:
    return [retriever.catalog.categories[row - 1] for row in answer.rows.tolist()]


def test_a_query_that_does_not_say_is_answered_as_the_release_was_evaluated(
    make_draft: MakeDraft,
) -> None:
    folder = make_draft(items=200)
    manifest = read_manifest(folder)
    training = manifest.training | {"exclude_seen": False}
    write_manifest(folder, manifest.model_copy(update={"training": training}))
    repeating = open_release(folder).retriever
    assert set(HISTORY) <= set(ids(repeating, ask(repeating, k=200)))
    assert not set(HISTORY) & set(ids(repeating, ask(repeating, k=200, exclude_seen=True)))


def test_excluded_seen_and_withdrawn_items_are_replaced_by_the_next(retriever: Retriever) -> None:
    ranking = ids(retriever, ask(retriever, k=200, exclude_seen=False))
    excluded, unknown = ranking[2:8], ["unknown"]
    withdrawn = retriever.catalog.rows(ranking[10:12])
    left = [item for item in ranking if item not in {*excluded, *ranking[10:12]}]

    answer = ask(retriever, *withdrawn, exclude=excluded + unknown, exclude_seen=False)
    assert ids(retriever, answer) == left[:20]
    answer = ask(retriever, *withdrawn, exclude=excluded + unknown)
    assert ids(retriever, answer) == [item for item in left if item not in HISTORY][:20]
    assert answer.unknown == 0


@pytest.mark.parametrize("history", [HISTORY, [], ["unknown"]])
def test_category_filters_apply_to_each_source(retriever: Retriever, history: list[str]) -> None:
    unfiltered = ask(retriever, history=history, k=200)
    for chosen, passes in [
        (CategoryFilter(["category 1"]), lambda kind: kind == "category 1"),
        (CategoryFilter(None, ["category 1"]), lambda kind: kind != "category 1"),
    ]:
        answer = ask(retriever, history=history, categories=chosen)
        names = zip(ids(retriever, unfiltered), kinds(retriever, unfiltered), strict=True)
        assert ids(retriever, answer) == [item for item, kind in names if passes(kind)][:20]
        assert answer.source == unfiltered.source
        assert len(answer.rows) == 20


def test_filters_apply_to_popular_items(retriever: Retriever) -> None:
    answer = ask(
        retriever,
        *(1, 2, 7),
        history=["unknown"],
        exclude=["item-4", "item-5"],
        categories=CategoryFilter(None, ["category 2"]),
        k=3,
    )
    assert ids(retriever, answer) == ["item-8", "item-10", "item-11"]
    assert answer.source == "popular"
    assert answer.unknown == 1


def test_an_answer_has_only_allowed_items(retriever: Retriever) -> None:
    for history in (HISTORY, []):
        answer = ask(retriever, history=history, k=200, categories=CategoryFilter(["category 1"]))
        assert set(kinds(retriever, answer)) == {"category 1"}
        assert 60 < len(answer.rows) < 70
        assert not len(ask(retriever, history=history, categories=CategoryFilter(["none"])).rows)


def test_diversity_chooses_from_the_best_allowed_items(retriever: Retriever) -> None:
    pool = ids(retriever, ask(retriever, k=POOL_FACTOR * 20))
    for history in (HISTORY, []):
        plain = ask(retriever, history=history)
        diverse = ask(retriever, history=history, diversity=1.0)
        sizes = np.unique([kind or "" for kind in kinds(retriever, diverse)], return_counts=True)[1]
        assert sizes.max() - sizes.min() <= 1, "categories alternate"
        assert len(set(ids(retriever, diverse))) == 20
        assert diverse.source == plain.source
    assert set(ids(retriever, ask(retriever, diversity=0.5))) <= set(pool)
    assert ids(retriever, ask(retriever, diversity=1e-9)) == pool[:20]
    one = ask(retriever, diversity=0.5, categories=CategoryFilter(["category 1"]))
    assert ids(retriever, one) == ids(
        retriever, ask(retriever, categories=CategoryFilter(["category 1"]))
    )


def test_diversity_does_not_depend_on_the_scale_of_scores(retriever: Retriever) -> None:
    """As if the encoder's interests were 64 times as long."""
    weights = retriever.encoder.state_dict()
    before = ask(retriever, diversity=0.4)
    weights["value.weight"].mul_(64)
    after = ask(retriever, diversity=0.4)
    weights["value.weight"].div_(64)

    assert before.rows.tolist() == after.rows.tolist()
    assert (before.scores * 64).tolist() == pytest.approx(after.scores.tolist())


def test_an_explanation_is_consistent_with_the_answer(retriever: Retriever) -> None:
    answer = ask(retriever, explain=True)
    explanation = answer.explanation
    assert explanation is not None

    [interests] = retriever.encode([retriever.catalog.rows(HISTORY)])
    products = retriever.vectors[answer.rows] @ interests.T
    np.testing.assert_allclose(explanation.scores, products, rtol=1e-5, atol=1e-6)
    own = explanation.scores[np.arange(20), answer.interests]
    assert own.tolist() == answer.scores.tolist()
    assert (own >= explanation.scores.max(axis=1) - 1e-6).all()
    wins = [(answer.interests == interest).mean() for interest in range(len(interests))]
    assert explanation.shares.tolist() == pytest.approx(wins)
    assert answer.top_interest_share == max(wins)
    for attended in explanation.attended:
        rows, weights = zip(*attended, strict=True)
        assert sorted(rows) == [1, 3, 9], "an item that appears twice is listed once"
        assert sum(weights) == pytest.approx(1)
        assert list(weights) == sorted(weights, reverse=True)


def test_attention_is_that_of_the_encoder(retriever: Retriever) -> None:
    """With histories of one and two items, where attention follows from the interests."""
    alone = ask(retriever, history=["item-5"], explain=True).explanation
    assert alone is not None
    assert alone.attended == [[(5, pytest.approx(1))]] * len(alone.shares)

    both = ask(retriever, history=["item-5", "item-8"], explain=True).explanation
    assert both is not None
    pair = retriever.encode([[5, 8], [5], [8]])
    for interest, attended in enumerate(both.attended):
        share = dict(attended)
        mixed = share[5] * pair[1, interest] + share[8] * pair[2, interest]
        np.testing.assert_allclose(pair[0, interest], mixed, rtol=1e-4, atol=1e-5)


def test_attention_covers_only_the_encoded_history_and_its_largest_weights(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = [f"item-{row}" for row in range(1, 30)]
    explanation = ask(retriever, history=history, explain=True).explanation
    assert explanation is not None
    newest = {25, 26, 27, 28, 29}
    assert all({row for row, _ in attended} == newest for attended in explanation.attended)

    monkeypatch.setattr("index.retrieval.explanation.MAX_ATTENDED", 2)
    fewer = ask(retriever, history=history, explain=True).explanation
    assert fewer is not None
    assert fewer.attended == [attended[:2] for attended in explanation.attended]


def test_explanation_and_overlap_are_only_in_answers_that_ask_for_them(
    retriever: Retriever,
) -> None:
    queries = [
        Query(HISTORY),
        Query(HISTORY, explain=True, measure_overlap=True),
        Query([], explain=True),
    ]
    plain, explained, popular = retriever.recommend(queries)

    assert (plain.explanation, plain.overlap) == (None, None)
    assert explained.explanation is not None
    assert explained.overlap is not None
    assert (popular.explanation, popular.overlap) == (None, None)


def test_the_overlap_counts_the_items_of_each_interest(retriever: Retriever) -> None:
    interests = retriever.encode([retriever.catalog.rows(HISTORY)])[0]
    scores = retriever.vectors[1:] @ interests.T
    found = {row for column in scores.T for row in (-column).argsort()[:20].tolist()}

    overlap = ask(
        retriever, measure_overlap=True, categories=CategoryFilter(["category 1"])
    ).overlap
    assert overlap == (len(found), 3 * 20), "of the interests, without filters"
    assert ask(retriever, measure_overlap=True, k=1000).overlap == (200, 3 * 200)
    assert ask(retriever, measure_overlap=True, history=["item-5"]).overlap is not None


def test_similar_items_are_the_nearest_without_the_item_itself(retriever: Retriever) -> None:
    vector = retriever.vectors[7] / np.linalg.norm(retriever.vectors[7])
    scores = retriever.vectors[1:] @ vector
    ranking = [row for row in (1 + (-scores).argsort()).tolist() if row != 7]

    rows, similar_scores = similar(retriever, 10)
    assert rows.tolist() == ranking[:10]
    np.testing.assert_allclose(similar_scores, scores[rows - 1], rtol=1e-5)
    rows, _ = similar(retriever, 10, frozenset(ranking[:5]))
    assert rows.tolist() == ranking[5:15]
    assert len(similar(retriever, 1000)[0]) == 199


def similar(
    retriever: Retriever, k: int, withdrawn: frozenset[int] = frozenset()
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    found = retriever.similar("item-7", k, withdrawn)
    assert found is not None
    return found[:2]


def test_a_batch_has_the_answers_of_single_queries(retriever: Retriever) -> None:
    queries = [
        Query(HISTORY, 5),
        Query([], 7, diversity=0.5),
        Query(HISTORY[:1], 9, exclude=[f"item-{row}" for row in range(1, 150)]),
        Query(["unknown"], 9, categories=CategoryFilter(["category 1"])),
        Query(HISTORY[2:], 150, categories=CategoryFilter(None, ["category 1"]), diversity=0.2),
        Query(HISTORY[3:], 40, exclude_seen=False, explain=True),
    ]
    withdrawn = frozenset(range(20, 60))
    together = retriever.recommend(queries, None, withdrawn)

    for query, answer in zip(queries, together, strict=True):
        [alone] = retriever.recommend([query], None, withdrawn)
        assert answer.rows.tolist() == alone.rows.tolist()
        assert not withdrawn & set(answer.rows.tolist())
    assert retriever.recommend([]) == []

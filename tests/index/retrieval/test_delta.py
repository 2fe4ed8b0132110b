"""New items beside a release: placed by who took them, and found as the catalogue's own are."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.encoders import build_encoder
from index.release.reading import open_release
from index.retrieval.delta import CONTEXT_ITEMS, Delta, cold_start_vector, median_norm, user_context
from index.retrieval.filters import CategoryFilter
from index.retrieval.retriever import Answer, Query, Retriever

MakeDraft = Callable[..., Path]
HISTORY = ["item-3", "item-9", "item-1"]
NEW = 30


@pytest.fixture
def retriever(make_draft: MakeDraft) -> Retriever:
    return open_release(make_draft(items=200)).retriever


@pytest.fixture
def delta(retriever: Retriever) -> Delta:
    """Drawn as the catalogue's vectors are, so that new items stand among its own everywhere."""
    vectors = np.random.default_rng(5).permutation(retriever.vectors[1:])[:NEW] * 1.001
    return Delta([f"new-{place}" for place in range(NEW)], vectors)


def ask(retriever: Retriever, delta: Delta | None, **query: object) -> Answer:
    [answer] = retriever.recommend([Query(**{"history": HISTORY, **query})], delta=delta)
    return answer


def ids(retriever: Retriever, delta: Delta, answer: Answer) -> list[str]:
    everything = [*retriever.catalog.ids, *delta.ids]
    return [everything[row - 1] for row in answer.rows.tolist()]


def oracle(retriever: Retriever, delta: Delta, barred: Iterable[str], k: int) -> list[str]:
    """The k best of all items, known and new, looked at one by one."""
    interests = retriever.encode([retriever.catalog.rows(HISTORY)])[0]
    vectors = np.concatenate([retriever.vectors[1:], delta.vectors])
    scores = (vectors @ interests.T).max(axis=1)
    everything = [*retriever.catalog.ids, *delta.ids]
    ranking = [everything[place] for place in np.argsort(-scores, kind="stable")]
    return [item for item in ranking if item not in set(barred)][:k]


@pytest.mark.parametrize("k", [1, 20, 230])
def test_new_items_stand_where_their_scores_put_them(
    retriever: Retriever, delta: Delta, k: int
) -> None:
    answer = ask(retriever, delta, k=k)
    assert ids(retriever, delta, answer) == oracle(retriever, delta, HISTORY, k)
    assert (np.diff(answer.scores) <= 0).all()
    interests = retriever.encode([retriever.catalog.rows(HISTORY)])[0]
    vectors = np.concatenate([retriever.vectors[1:], delta.vectors])
    found_by = (vectors[answer.rows - 1] @ interests.T).argmax(axis=1)
    assert answer.interests.tolist() == found_by.tolist()


def test_new_items_are_left_out_as_others_are(retriever: Retriever, delta: Delta) -> None:
    best = [item for item in oracle(retriever, delta, [], 230) if item.startswith("new-")]
    excluded = ask(retriever, delta, k=50, exclude=[best[0], best[1], "nobody"])
    left = oracle(retriever, delta, [*HISTORY, *best[:2]], 50)
    assert ids(retriever, delta, excluded) == left
    given = {"history": [*HISTORY, best[0]], "exclude": [best[1], "nobody"], "k": 230}
    assert best[0] not in ids(retriever, delta, ask(retriever, delta, **given))
    seen = ids(retriever, delta, ask(retriever, delta, exclude_seen=False, **given))
    assert best[0] in seen
    assert best[1] not in seen
    fewer = delta.without({best[0], "nobody"})
    assert best[0] not in fewer.ids
    assert len(fewer) == NEW - 1
    assert delta.without({"nobody"}) is delta


def test_their_category_is_not_known(retriever: Retriever, delta: Delta) -> None:
    allowed = ask(retriever, delta, k=200, categories=CategoryFilter(["category 1"]))
    assert (allowed.rows <= 200).all()
    denied = ask(retriever, delta, k=230, categories=CategoryFilter(None, ["category 1"]))
    assert np.count_nonzero(denied.rows > 200) == NEW


def test_they_are_diversified_and_explained(retriever: Retriever, delta: Delta) -> None:
    answer = ask(retriever, delta, k=40, diversity=0.5, explain=True)
    new = answer.rows > 200
    assert new.any()
    assert answer.explanation is not None
    best = answer.explanation.scores.max(axis=1)
    np.testing.assert_allclose(best, answer.scores, rtol=1e-5)


def test_they_are_read_in_a_history_as_the_catalogues_own_are(
    retriever: Retriever, delta: Delta
) -> None:
    twins = Delta(["twin"], retriever.vectors[[9]])
    told = ask(retriever, twins, history=["item-3", "twin"], exclude=["item-9"], explain=True)
    same = ask(retriever, twins, history=["item-3", "item-9"], exclude=["twin"], explain=True)
    assert told.source == "interests"
    assert told.rows.tolist() == same.rows.tolist()
    np.testing.assert_allclose(told.scores, same.scores, rtol=1e-6)
    assert (told.unknown, same.unknown) == (1, 0), "of the catalogue"
    assert told.explanation is not None
    assert {row for each in told.explanation.attended for row, _ in each} == {3, 201}


def test_a_history_of_new_items_alone_is_enough(retriever: Retriever, delta: Delta) -> None:
    answer = ask(retriever, delta, history=["new-1", "nobody"])
    assert answer.source == "interests"
    assert answer.unknown == 2
    assert 200 + 1 + 1 not in answer.rows, "it is seen"
    assert ask(retriever, None, history=["new-1"]).source == "popular"
    assert ask(retriever, delta, history=["nobody"]).source == "popular"


def test_an_encoder_with_a_table_of_its_own_reads_them(retriever: Retriever, delta: Delta) -> None:
    """It has no row for them."""
    encoder = build_encoder("timirec", {"items": 200, "dim": retriever.encoder.dim}).eval()
    answer = ask(replace(retriever, encoder=encoder), delta, history=["item-1", "new-1"])
    assert answer.source == "interests"
    assert np.isfinite(answer.scores).all()


def test_items_similar_to_a_new_one_are_of_the_catalogue(
    retriever: Retriever, delta: Delta
) -> None:
    found = retriever.similar("new-2", 10, delta=delta)
    assert found is not None
    scores = retriever.vectors[1:] @ (delta.vectors[2] / np.linalg.norm(delta.vectors[2]))
    assert found[0].tolist() == (1 + (-scores).argsort()[:10]).tolist()
    assert retriever.similar("new-2", 10) is None
    assert retriever.similar("nobody", 10, delta=delta) is None


def test_who_is_not_known_has_popular_items(retriever: Retriever, delta: Delta) -> None:
    answer = ask(retriever, delta, history=["nobody"])
    assert answer.source == "popular"
    assert (answer.rows <= 200).all()


def test_an_item_is_placed_where_its_takers_stood(retriever: Retriever) -> None:
    vectors = retriever.vectors

    def mean_of(rows: list[int]) -> NDArray[np.float32]:
        mean: NDArray[np.float32] = vectors[rows].mean(axis=0)
        return mean / np.linalg.norm(mean)

    assert CONTEXT_ITEMS == 3
    np.testing.assert_allclose(user_context(vectors, [9, 1, 2, 3]), mean_of([1, 2, 3]), rtol=1e-6)
    stands = [user_context(vectors, rows) for rows in ([5], [6, 7])]
    length = median_norm(vectors)
    assert length == pytest.approx(np.median(np.linalg.norm(vectors[1:], axis=1)))
    placed = cold_start_vector(stands, length)
    assert np.linalg.norm(placed) == pytest.approx(length, rel=1e-6)
    np.testing.assert_allclose(
        placed / length, (a := mean_of([5]) + mean_of([6, 7])) / np.linalg.norm(a), rtol=1e-5
    )

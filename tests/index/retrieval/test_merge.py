"""The fast merge against a simple one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.retrieval.merge import Hits, merge, stack_hits

Ranking = list[tuple[int, float, int]]

# Few values, so that rows repeat and scores tie; -0.0 equals 0.0, and a row below 1 is padding.
SCORES = st.sampled_from([-np.inf, -2.5, -1e-3, -0.0, 0.0, 1e-3, 0.5, 0.5000001, 3.0, 1e30])
HIT = st.tuples(st.integers(-1, 6), SCORES, st.integers(0, 3))
REQUESTS = st.integers(0, 12).flatmap(
    lambda width: st.lists(st.lists(HIT, min_size=width, max_size=width), min_size=1, max_size=4)
)


def hits_of(requests: list[Ranking]) -> Hits:
    shape = len(requests), len(requests[0])
    columns = zip(*(hit for ranking in requests for hit in ranking), strict=True)
    rows, scores, interests = columns if shape[1] else ((), (), ())
    return Hits(
        rows=np.array(rows, np.int64).reshape(shape),
        scores=np.array(scores, np.float32).reshape(shape),
        interests=np.array(interests, np.int64).reshape(shape),
    )


def reference_merge(ranking: Ranking) -> Ranking:
    """Each item's best hit: highest score, then lowest row, then lowest interest."""
    best: dict[int, tuple[int, float, int]] = {}
    for row, score, interest in ranking:
        if row < 1:
            continue
        hit = (row, float(np.float32(score)), interest)
        if row not in best or (-hit[1], interest) < (-best[row][1], best[row][2]):
            best[row] = hit
    return sorted(best.values(), key=lambda hit: (-hit[1], hit[0], hit[2]))


def ranking_of(hits: Hits, position: int) -> Ranking:
    return list(zip(*(field[position].tolist() for field in hits), strict=True))


@given(REQUESTS)
def test_merge_agrees_with_the_reference(requests: list[Ranking]) -> None:
    merged = merge(hits_of(requests))
    for position, ranking in enumerate(requests):
        expected = reference_merge(ranking)
        assert ranking_of(merged, position)[: len(expected)] == expected
        padding = slice(len(expected), None)
        assert (merged.rows[position, padding] == 0).all()
        assert (merged.scores[position, padding] == -np.inf).all()


@given(st.lists(SCORES, min_size=1, max_size=12))
def test_hits_with_ascending_rows_are_merged(scores: list[float]) -> None:
    ranking = [(row, score, 0) for row, score in enumerate(scores, start=1)]
    assert ranking_of(merge(hits_of([ranking])), 0) == reference_merge(ranking)


def test_the_better_hit_of_an_item_counts() -> None:
    merged = merge(hits_of([[(7, 0.5, 0), (3, 0.75, 1), (7, 1.0, 2)]]))
    assert ranking_of(merged, 0) == [(7, 1.0, 2), (3, 0.75, 1)]


@pytest.mark.parametrize("requests", [1, 3])
def test_no_hits_make_an_empty_ranking(requests: int) -> None:
    merged = merge(hits_of([[]] * requests))
    assert merged.rows.shape == (requests, 0)


def test_requests_of_differing_length_are_filled_up_with_no_hit() -> None:
    def ranking(*rows: int) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        return np.array(rows), np.ones(len(rows), np.float32), np.zeros(len(rows), np.int64)

    hits = stack_hits([ranking(4, 5), ranking(), ranking(6)])
    assert hits.rows.tolist() == [[4, 5], [0, 0], [6, 0]]
    assert hits.scores.tolist() == [[1, 1], [-np.inf, -np.inf], [1, -np.inf]]
    assert stack_hits([]).rows.shape == (0, 0)
    assert merge(hits).rows.tolist() == hits.rows.tolist()

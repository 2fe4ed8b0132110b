"""The fast merge against the obvious one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.retrieval.merge import Hits, merge, stack_hits

Ranking = list[tuple[int, float, int]]

# Few values, so that rows repeat and scores tie; -0.0 equals 0.0, and a row below 1 is no hit.
SCORES = st.sampled_from([-np.inf, -2.5, -1e-3, -0.0, 0.0, 1e-3, 0.5, 0.5000001, 3.0, 1e30])
HIT = st.tuples(st.integers(-1, 6), SCORES, st.integers(0, 3))
LINES = st.integers(0, 12).flatmap(
    lambda width: st.lists(st.lists(HIT, min_size=width, max_size=width), min_size=1, max_size=4)
)


def hits_of(lines: list[Ranking]) -> Hits:
    shape = len(lines), len(lines[0])
    columns = zip(*(hit for line in lines for hit in line), strict=True)
    rows, scores, interests = columns if shape[1] else ((), (), ())
    return Hits(
        rows=np.array(rows, np.int64).reshape(shape),
        scores=np.array(scores, np.float32).reshape(shape),
        interests=np.array(interests, np.int64).reshape(shape),
    )


def slow(line: Ranking) -> Ranking:
    """Each item's best hit, by falling score, then row, then interest."""
    best: dict[int, tuple[int, float, int]] = {}
    for row, score, interest in line:
        if row < 1:
            continue
        hit = (row, float(np.float32(score)), interest)
        if row not in best or (-hit[1], interest) < (-best[row][1], best[row][2]):
            best[row] = hit
    return sorted(best.values(), key=lambda hit: (-hit[1], hit[0], hit[2]))


def line_of(hits: Hits, place: int) -> Ranking:
    return list(zip(*(field[place].tolist() for field in hits), strict=True))


@given(LINES)
def test_it_ranks_as_the_obvious_merge_does(lines: list[Ranking]) -> None:
    merged = merge(hits_of(lines))
    for place, line in enumerate(lines):
        wanted = slow(line)
        assert line_of(merged, place)[: len(wanted)] == wanted
        left = slice(len(wanted), None)
        assert (merged.rows[place, left] == 0).all()
        assert (merged.scores[place, left] == -np.inf).all()


@given(st.lists(SCORES, min_size=1, max_size=12))
def test_hits_in_order_of_their_rows_are_ranked_too(scores: list[float]) -> None:
    line = [(row, score, 0) for row, score in enumerate(scores, start=1)]
    assert line_of(merge(hits_of([line])), 0) == slow(line)


def test_of_an_item_found_by_two_interests_the_better_counts() -> None:
    merged = merge(hits_of([[(7, 0.5, 0), (3, 0.75, 1), (7, 1.0, 2)]]))
    assert line_of(merged, 0) == [(7, 1.0, 2), (3, 0.75, 1)]


@pytest.mark.parametrize("requests", [1, 3])
def test_no_hits_make_an_empty_ranking(requests: int) -> None:
    merged = merge(hits_of([[]] * requests))
    assert merged.rows.shape == (requests, 0)


def test_lines_of_differing_length_are_filled_up_with_no_hit() -> None:
    def line(*rows: int) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        return np.array(rows), np.ones(len(rows), np.float32), np.zeros(len(rows), np.int64)

    hits = stack_hits([line(4, 5), line(), line(6)])
    assert hits.rows.tolist() == [[4, 5], [0, 0], [6, 0]]
    assert hits.scores.tolist() == [[1, 1], [-np.inf, -np.inf], [1, -np.inf]]
    assert stack_hits([]).rows.shape == (0, 0)
    assert merge(hits).rows.tolist() == hits.rows.tolist()

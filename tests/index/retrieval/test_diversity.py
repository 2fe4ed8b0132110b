"""The sort against ComiRec's greedy choice, and the scale that no model's scores change."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.retrieval.diversity import diversify

POOL = np.array([9, 8, 7, 6, 5, 4, 3, 2], dtype=np.float32)
KINDS = np.array([1, 1, 1, 2, 1, 3, 2, 0])

WHOLE = st.lists(st.integers(-1000, 1000), min_size=1, max_size=30)
SHARE = st.floats(0, 1, exclude_min=True, exclude_max=True)


def drawn(scores: list[int], seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The scores as a pool has them, falling, and a category for each."""
    falling = np.sort(np.array(scores, dtype=np.float32))[::-1].copy()
    return falling, np.random.default_rng(seed).integers(0, 4, len(scores))


def greedily(
    scores: NDArray[np.float32], kinds: NDArray[np.int64], k: int, diversity: float
) -> list[float]:
    """What each choice of ComiRec's greedy algorithm adds to Q, by the formula as it is written."""
    least, greatest = float(scores[-1]), float(scores[0])
    weight = 2 * diversity / max(k - 1, 1)
    chosen: list[int] = []
    gains = []
    while len(chosen) < min(k, len(scores)):
        best = max(
            (gain(place, chosen, scores, kinds, diversity, weight, least, greatest), -place)
            for place in range(len(scores))
            if place not in chosen
        )
        gains.append(best[0])
        chosen.append(-best[1])
    return gains


def gain(
    place: int,
    chosen: list[int],
    scores: NDArray[np.float32],
    kinds: NDArray[np.int64],
    diversity: float,
    weight: float,
    least: float,
    greatest: float,
) -> float:
    relevance = (float(scores[place]) - least) / (greatest - least) if greatest > least else 0.0
    pairs = sum(kinds[place] != kinds[other] for other in chosen)
    return (1 - diversity) * relevance + weight * float(pairs)


@given(WHOLE, st.integers(0, 1000), st.integers(1, 40), SHARE)
def test_each_choice_gains_what_the_greedy_one_does(
    scores: list[int], seed: int, k: int, diversity: float
) -> None:
    """Gains and not items: of two that gain the same but for rounding, either may come first."""
    pool, kinds = drawn(scores, seed)
    places = diversify(pool, kinds, k, diversity).tolist()
    weight, least, greatest = 2 * diversity / max(k - 1, 1), float(pool[-1]), float(pool[0])
    gains = [
        gain(place, places[:done], pool, kinds, diversity, weight, least, greatest)
        for done, place in enumerate(places)
    ]

    assert len(set(places)) == len(places)
    assert gains == pytest.approx(greedily(pool, kinds, k, diversity), abs=1e-9)


@given(WHOLE, st.integers(0, 1000), st.integers(1, 40), SHARE, st.integers(-20, 20))
def test_the_size_of_the_scores_changes_nothing(
    scores: list[int], seed: int, k: int, diversity: float, power: int
) -> None:
    pool, kinds = drawn(scores, seed)
    plain = diversify(pool, kinds, k, diversity)
    scaled = diversify(pool * np.float32(2.0**power), kinds, k, diversity)

    assert plain.tolist() == scaled.tolist()


@pytest.mark.parametrize("diversity", [0.05, 0.3, 0.7, 1.0])
@pytest.mark.parametrize(("factor", "shift"), [(3.7, 0.0), (0.001, 0.0), (1.0, 500.0), (8e4, -3.0)])
def test_neither_a_factor_nor_a_shift_changes_anything(
    diversity: float, factor: float, shift: float
) -> None:
    generator = np.random.default_rng(5)
    pool = np.sort(generator.standard_normal(200))[::-1].astype(np.float32)
    kinds = generator.integers(0, 6, 200)
    moved = (pool.astype(np.float64) * factor + shift).astype(np.float32)

    plain, other = (diversify(scores, kinds, 50, diversity) for scores in (pool, moved))
    assert np.mean(plain == other) > 0.9, "float32 rounds what lies near together"
    assert len(set(plain.tolist()) & set(other.tolist())) >= 49


def test_a_little_leaves_the_order_and_all_of_it_makes_categories_take_turns() -> None:
    assert diversify(POOL, KINDS, 4, 1e-6).tolist() == [0, 1, 2, 3]
    assert diversify(POOL, KINDS, 4, 1.0).tolist() == [0, 3, 5, 7]
    assert diversify(POOL, KINDS, 8, 1.0).tolist() == [0, 3, 5, 7, 1, 6, 2, 4]


def test_what_is_more_diverse_differs_more_in_category() -> None:
    generator = np.random.default_rng(6)
    pool = np.sort(generator.standard_normal(200))[::-1].astype(np.float32)
    kinds = np.minimum(generator.geometric(0.4, 200), 8)
    pairs, scores = [], []
    for diversity in (1e-9, 0.2, 0.5, 0.8, 1.0):
        places = diversify(pool, kinds, 50, diversity)
        pairs.append((kinds[places][:, None] != kinds[places]).sum())
        scores.append(pool[places].sum())

    assert pairs == sorted(pairs)
    assert pairs[0] < pairs[2] < pairs[4]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("diversity", [0.3, 1.0])
def test_where_all_are_of_one_category_the_scores_decide(diversity: float) -> None:
    assert diversify(POOL, np.zeros(8, np.int64), 5, diversity).tolist() == [0, 1, 2, 3, 4]


def test_of_equals_those_that_stand_first_are_taken() -> None:
    equal = np.ones(6, np.float32)
    assert diversify(equal, np.array([1, 1, 2, 2, 3, 3]), 4, 0.5).tolist() == [0, 2, 4, 1]


@pytest.mark.parametrize("k", [1, 8, 100])
def test_a_pool_of_any_size_will_do(k: int) -> None:
    assert diversify(POOL, KINDS, k, 0.5)[0] == 0
    assert len(diversify(POOL, KINDS, k, 0.5)) == min(k, 8)
    assert len(diversify(POOL[:0], KINDS[:0], k, 0.5)) == 0

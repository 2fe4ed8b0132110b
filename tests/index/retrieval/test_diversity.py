"""The sort equals ComiRec's greedy choice; the scale of scores does not matter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.retrieval.diversity import diversify

POOL = np.array([9, 8, 7, 6, 5, 4, 3, 2], dtype=np.float32)
CATEGORIES = np.array([1, 1, 1, 2, 1, 3, 2, 0])

WHOLE = st.lists(st.integers(-1000, 1000), min_size=1, max_size=30)
SHARE = st.floats(0, 1, exclude_min=True, exclude_max=True)


def draw_pool(scores: list[int], seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Falling scores of a pool, and a category for each."""
    falling = np.sort(np.array(scores, dtype=np.float32))[::-1].copy()
    return falling, np.random.default_rng(seed).integers(0, 4, len(scores))


def greedy_gains(
    scores: NDArray[np.float32], categories: NDArray[np.int64], k: int, diversity: float
) -> list[float]:
    """The gain in Q of each choice of ComiRec's greedy algorithm, by the formula."""
    lowest, highest = float(scores[-1]), float(scores[0])
    weight = 2 * diversity / max(k - 1, 1)
    chosen: list[int] = []
    gains = []
    while len(chosen) < min(k, len(scores)):
        best = max(
            (gain(item, chosen, scores, categories, diversity, weight, lowest, highest), -item)
            for item in range(len(scores))
            if item not in chosen
        )
        gains.append(best[0])
        chosen.append(-best[1])
    return gains


def gain(
    position: int,
    chosen: list[int],
    scores: NDArray[np.float32],
    categories: NDArray[np.int64],
    diversity: float,
    weight: float,
    lowest: float,
    highest: float,
) -> float:
    relevance = (float(scores[position]) - lowest) / (highest - lowest) if highest > lowest else 0.0
    pairs = sum(categories[position] != categories[other] for other in chosen)
    return (1 - diversity) * relevance + weight * float(pairs)


@given(WHOLE, st.integers(0, 1000), st.integers(1, 40), SHARE)
def test_each_choice_has_the_gain_of_the_greedy_algorithm(
    scores: list[int], seed: int, k: int, diversity: float
) -> None:
    """Compares gains, as of two items with nearly equal gains either may come first."""
    pool, categories = draw_pool(scores, seed)
    positions = diversify(pool, categories, k, diversity).tolist()
    weight, lowest, highest = 2 * diversity / max(k - 1, 1), float(pool[-1]), float(pool[0])
    gains = [
        gain(position, positions[:done], pool, categories, diversity, weight, lowest, highest)
        for done, position in enumerate(positions)
    ]

    assert len(set(positions)) == len(positions)
    assert gains == pytest.approx(greedy_gains(pool, categories, k, diversity), abs=1e-9)


@given(WHOLE, st.integers(0, 1000), st.integers(1, 40), SHARE, st.integers(-20, 20))
def test_the_scale_of_the_scores_changes_nothing(
    scores: list[int], seed: int, k: int, diversity: float, power: int
) -> None:
    pool, categories = draw_pool(scores, seed)
    plain = diversify(pool, categories, k, diversity)
    scaled = diversify(pool * np.float32(2.0**power), categories, k, diversity)

    assert plain.tolist() == scaled.tolist()


@pytest.mark.parametrize("diversity", [0.05, 0.3, 0.7, 1.0])
@pytest.mark.parametrize(("factor", "shift"), [(3.7, 0.0), (0.001, 0.0), (1.0, 500.0), (8e4, -3.0)])
def test_neither_a_factor_nor_a_shift_changes_anything(
    diversity: float, factor: float, shift: float
) -> None:
    generator = np.random.default_rng(5)
    pool = np.sort(generator.standard_normal(200))[::-1].astype(np.float32)
    categories = generator.integers(0, 6, 200)
    moved = (pool.astype(np.float64) * factor + shift).astype(np.float32)

    plain, other = (diversify(scores, categories, 50, diversity) for scores in (pool, moved))
    assert np.mean(plain == other) > 0.9, "float32 rounds scores that are close"
    assert len(set(plain.tolist()) & set(other.tolist())) >= 49


def test_low_diversity_keeps_the_order_and_full_diversity_alternates_categories() -> None:
    assert diversify(POOL, CATEGORIES, 4, 1e-6).tolist() == [0, 1, 2, 3]
    assert diversify(POOL, CATEGORIES, 4, 1.0).tolist() == [0, 3, 5, 7]
    assert diversify(POOL, CATEGORIES, 8, 1.0).tolist() == [0, 3, 5, 7, 1, 6, 2, 4]


def test_higher_diversity_gives_more_pairs_of_different_categories() -> None:
    generator = np.random.default_rng(6)
    pool = np.sort(generator.standard_normal(200))[::-1].astype(np.float32)
    categories = np.minimum(generator.geometric(0.4, 200), 8)
    pairs, scores = [], []
    for diversity in (1e-9, 0.2, 0.5, 0.8, 1.0):
        positions = diversify(pool, categories, 50, diversity)
        pairs.append((categories[positions][:, None] != categories[positions]).sum())
        scores.append(pool[positions].sum())

    assert pairs == sorted(pairs)
    assert pairs[0] < pairs[2] < pairs[4]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("diversity", [0.3, 1.0])
def test_in_a_single_category_the_scores_decide(diversity: float) -> None:
    assert diversify(POOL, np.zeros(8, np.int64), 5, diversity).tolist() == [0, 1, 2, 3, 4]


def test_ties_go_to_the_first_item() -> None:
    equal = np.ones(6, np.float32)
    assert diversify(equal, np.array([1, 1, 2, 2, 3, 3]), 4, 0.5).tolist() == [0, 2, 4, 1]


@pytest.mark.parametrize("k", [1, 8, 100])
def test_a_pool_may_have_any_size(k: int) -> None:
    assert diversify(POOL, CATEGORIES, k, 0.5)[0] == 0
    assert len(diversify(POOL, CATEGORIES, k, 0.5)) == min(k, 8)
    assert len(diversify(POOL[:0], CATEGORIES[:0], k, 0.5)) == 0

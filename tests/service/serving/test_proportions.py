"""Intervals of hit rates: against known values, and their error over many looks."""

import numpy as np
import pytest

from service.serving.proportions import Interval, Proportion, difference, wilson


@pytest.mark.parametrize(
    ("users", "hits", "low", "high"),
    [(10, 2, 0.0567, 0.5098), (100, 50, 0.4038, 0.5962), (100, 0, 0.0, 0.0370)],
)
def test_wilsons_interval_is_that_of_the_tables(
    users: int, hits: int, low: float, high: float
) -> None:
    interval = wilson(Proportion(users, hits))
    assert (interval.low, interval.high) == (
        pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4),
    )  # fmt: skip


def test_nothing_is_known_without_users() -> None:
    nobody = Proportion(0, 0)
    assert wilson(nobody) == Interval(0.0, 0.0, 1.0)
    between = difference(nobody, nobody, 0.01)
    assert (between.low, between.high) == (-1, 1)


def test_the_interval_narrows_with_users_and_widens_with_certainty() -> None:
    def width(users: int, alpha: float) -> float:
        interval = difference(Proportion(users, users // 10), Proportion(users, users // 5), alpha)
        assert interval.estimate == pytest.approx(-0.1)
        return interval.high - interval.low

    assert width(10_000, 0.01) < width(1000, 0.01) < width(1000, 0.001)


def test_all_looks_together_miss_an_equal_rate_as_rarely_as_alpha_says() -> None:
    """A test of the same alpha at each look, without the sequence, misses far more often."""
    generator = np.random.default_rng(1)
    alpha, users, runs = 0.1, 4000, 300
    missed = naive = 0
    for _ in range(runs):
        first, second = (generator.random((2, users)) < 0.2).cumsum(axis=1)
        looks = range(100, users, 50)
        intervals = [
            difference(Proportion(n, int(first[n])), Proportion(n, int(second[n])), alpha)
            for n in looks
        ]
        missed += any(i.low > 0 or i.high < 0 for i in intervals)
        naive += any(
            abs(int(first[n]) - int(second[n])) / n > 1.645 * (2 * 0.2 * 0.8 / n) ** 0.5
            for n in looks
        )
    assert missed / runs <= alpha
    assert naive / runs > 2 * alpha

"""The estimated wait follows the batches, and is not misled by pauses."""

import pytest

from service.serving.wait_estimate import WaitEstimate


def test_the_estimate_follows_slow_batches_and_hardly_one_pause() -> None:
    """A pause must not reject the requests that arrive during it."""
    estimate, now = WaitEstimate(1), 0.0
    for _ in range(20):
        estimate.batch_began(now)
        now += 0.01
    estimate.batch_began(now + 0.2)
    assert estimate.interval_s == pytest.approx(0.015)
    for batch in range(1, 11):
        estimate.batch_began(now + 0.2 + 0.1 * batch)
    assert estimate.interval_s == pytest.approx(0.1, rel=0.1)

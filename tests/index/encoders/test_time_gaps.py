"""Codes of times, and the vectors that are learnt for them."""

import math

import numpy as np
import pytest
import torch

from index.encoders.time_gaps import CODES, UNKNOWN, GapEmbedding, codes_of_ages, gap_codes

DAY = 86_400.0
NAN = math.nan


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (-5, 1),
        (0, 1),
        (0.9, 1),
        (1, 2),
        (2.9, 2),
        (3, 3),
        (2**16 - 1.5, 16),
        (2**16 - 1, 17),
        (DAY, 17),
        (2**31, CODES - 1),
        (1e300, CODES - 1),
        (math.inf, CODES - 1),
        (NAN, UNKNOWN),
    ],
)
def test_a_time_has_the_code_of_its_power_of_two(seconds: float, code: int) -> None:
    assert gap_codes([seconds]).tolist() == [code]


def test_codes_are_the_rounded_logarithm() -> None:
    seconds = np.random.default_rng(0).uniform(0, 20, 1000)
    seconds = np.expm1(seconds)
    assert gap_codes(seconds).tolist() == [1 + int(math.log2(1 + s)) for s in seconds]


def test_ages_tell_the_time_to_the_next_event_and_from_the_last_to_the_request() -> None:
    assert codes_of_ages([3 * DAY, 2 * DAY, 10]).tolist() == [17, 18, 4]
    assert codes_of_ages([]).tolist() == []


def test_next_to_an_unknown_time_no_gap_is_known() -> None:
    assert codes_of_ages([100, NAN, 10, 0]).tolist() == [0, 0, 4, 1]
    assert codes_of_ages([100, NAN]).tolist() == [0, 0]


def test_events_that_are_not_in_order_have_no_time_between_them() -> None:
    assert codes_of_ages([10, 20, -5]).tolist() == [1, 5, 1]


def test_of_a_time_that_was_not_learnt_the_next_lower_one_is_read() -> None:
    """As in a log of days: a request comes hours after the last event."""
    embedding = GapEmbedding(4).eval()
    torch.nn.init.normal_(embedding.vectors)
    embedding.restrict(gap_codes([0, 0, 30 * DAY, DAY, NAN]))
    assert embedding.nearest.tolist() == [0, *[1] * 16, *[17] * 5, *[22] * 11]
    served = embedding(torch.tensor([[1, 12, 16, 21, 32]]), torch.zeros(1, 5))[0]
    assert torch.equal(served, embedding.vectors[[1, 1, 1, 17, 22]])
    other = GapEmbedding(4)
    other.restrict(gap_codes([60]))
    other.extend(embedding.nearest)
    assert other.nearest.tolist() == [0, *[1] * 5, *[6] * 11, *[17] * 5, *[22] * 11]


def test_a_tenth_of_the_histories_is_learnt_without_times() -> None:
    embedding = GapEmbedding(4)
    torch.nn.init.normal_(embedding.vectors)
    codes = torch.full((2000, 3), 7)
    hidden = (embedding(codes, codes) == embedding.vectors[UNKNOWN]).all(dim=2)
    assert (hidden.all(dim=1) == hidden.any(dim=1)).all()
    assert 0.08 < hidden[:, 0].float().mean() < 0.12
    served = embedding.eval()(codes, codes)
    assert (served == embedding.vectors[7]).all()
    assert (embedding(None, codes) == embedding.vectors[UNKNOWN]).all()

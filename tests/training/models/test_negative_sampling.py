"""Samplers: they never draw padding, and their logQ is the frequency of their draws."""

import math

import pytest
import torch

from training.models.negative_sampling import build_sampler, full, in_batch, log_uniform, uniform

ITEMS = 6
TARGETS = torch.tensor([2, 5, 2])


@pytest.mark.parametrize("name", ["uniform", "log-uniform", "in-batch", "full"])
def test_every_sampler_stays_within_the_catalogue(name):
    torch.manual_seed(0)
    sample = build_sampler(name, torch.arange(ITEMS + 1), 500)
    rows = sample(TARGETS).rows
    assert rows.min() >= 1
    assert rows.max() <= ITEMS


def test_uniform_draws_all_rows_equally_often():
    torch.manual_seed(0)
    drawn = uniform(ITEMS, 60_000)(TARGETS)
    share = torch.bincount(drawn.rows, minlength=ITEMS + 1)[1:] / 60_000
    torch.testing.assert_close(share, torch.full((ITEMS,), 1 / ITEMS), atol=0.01, rtol=0)
    assert drawn.log_q is None


def test_log_uniform_draws_rows_as_often_as_its_correction():
    torch.manual_seed(0)
    count = 60_000
    drawn = log_uniform(ITEMS, count)(TARGETS)
    expected = torch.tensor(
        [math.log((r + 1) / r) / math.log(ITEMS + 1) for r in range(1, ITEMS + 1)]
    )
    share = torch.bincount(drawn.rows, minlength=ITEMS + 1)[1:] / count
    torch.testing.assert_close(share, expected, atol=0.01, rtol=0)
    torch.testing.assert_close(drawn.target_log_q.exp() / count, expected[TARGETS - 1])
    torch.testing.assert_close(drawn.log_q.exp() / count, expected[drawn.rows - 1])


def test_in_batch_draws_the_targets_and_corrects_by_popularity():
    drawn = in_batch(torch.tensor([0, 5, 3, 1, 1, 0, 0]))(TARGETS)
    assert drawn.rows.tolist() == TARGETS.tolist()
    torch.testing.assert_close(drawn.log_q.exp(), torch.tensor([0.9, 0.3, 0.9]))


def test_full_draws_every_row_once():
    assert full(ITEMS)(TARGETS).rows.tolist() == list(range(1, ITEMS + 1))

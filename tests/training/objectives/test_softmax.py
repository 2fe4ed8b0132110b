"""The main loss against loops, and its rules."""

import math

import pytest
import torch

from index.encoders import History, Interests
from training.negatives import full, uniform
from training.objectives import Forward, Objective
from training.objectives.softmax import HardSoftmax

B, K, D, N = 4, 3, 6, 9


def a_batch(negatives: torch.Tensor) -> Forward:
    torch.manual_seed(1)
    table = torch.randn(N + 1, D, dtype=torch.float64)
    interests = torch.randn(B, K, D, dtype=torch.float64, requires_grad=True)
    rows = torch.randint(1, N + 1, (B, 2))
    history = History(rows, table[rows], rows > 0)
    targets = torch.tensor([1, 4, 4, 9])
    return Forward(
        history,
        Interests(interests, torch.full((B, K, 2), 0.5), interests),
        targets,
        table[targets],
        negatives,
        table[negatives],
    )


def test_hard_softmax_agrees_with_loops():
    batch = a_batch(torch.tensor([4, 2, 2, 7, 1]))
    expected = 0.0
    for b in range(B):
        z = max(batch.interests.vectors[b], key=lambda v: (v @ batch.target_vectors[b]).item())
        target = (z @ batch.target_vectors[b]).item()
        logits = [
            (z @ vector).item()
            for row, vector in zip(batch.negatives, batch.negative_vectors, strict=True)
            if row != batch.targets[b]
        ]
        total = math.exp(target) + sum(math.exp(logit) for logit in logits)
        expected -= (target - math.log(total)) / B
    assert HardSoftmax()(batch).item() == pytest.approx(expected, rel=1e-9)


def test_only_the_chosen_interest_learns():
    batch = a_batch(torch.tensor([2, 3]))
    HardSoftmax()(batch).backward()
    moved = batch.interests.vectors.grad.abs().sum(dim=2) > 0
    assert moved.sum(dim=1).tolist() == [1] * B
    best = (batch.interests.vectors @ batch.target_vectors[:, :, None]).squeeze(2).argmax(dim=1)
    assert moved.int().argmax(dim=1).tolist() == best.tolist()


def test_full_sampler_gives_the_exact_softmax():
    negatives = full(N)(torch.tensor([1])).rows
    batch = a_batch(negatives)
    best = (batch.interests.vectors @ batch.target_vectors[:, :, None]).squeeze(2).argmax(dim=1)
    chosen = batch.interests.vectors[torch.arange(B), best]
    logits = chosen @ batch.negative_vectors.T
    exact = torch.nn.functional.cross_entropy(logits, batch.targets - 1)
    assert HardSoftmax()(batch).item() == pytest.approx(exact.item(), rel=1e-9)


def test_uniform_sampler_never_draws_padding_and_reaches_all():
    torch.manual_seed(0)
    drawn = uniform(5, 2000)(torch.tensor([1])).rows
    assert sorted(set(drawn.tolist())) == [1, 2, 3, 4, 5]


def test_objective_adds_weighted_terms_and_skips_those_of_coefficient_0():
    class Boom(HardSoftmax):
        def forward(self, batch: Forward) -> torch.Tensor:
            raise AssertionError("a term of coefficient 0 was computed")

    batch = a_batch(torch.tensor([2, 3]))
    loss, terms = Objective(
        {"a": (1.0, HardSoftmax()), "b": (0.5, HardSoftmax()), "c": (0.0, Boom())}
    )(batch)
    assert set(terms) == {"a", "b"}
    assert loss.item() == pytest.approx(1.5 * terms["a"].item())

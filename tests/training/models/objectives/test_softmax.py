"""The main losses against loops, in float64, and their rules."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from index.encoders import History, Interests
from index.encoders.interface import prefixes
from training.models.negative_sampling import full
from training.models.objectives import AUXILIARY_LOSSES, LossInputs, Objective, build_objective
from training.models.objectives.bam import MultiLoss
from training.models.objectives.remi import HardNegatives, RoutingRegularizer
from training.models.objectives.served_scores import served_scores
from training.models.objectives.softmax import (
    HardReadoutSoftmax,
    ServedMax,
    gather_interests,
    target_scores,
)
from training.models.options import ModelOptions

B, K, D, N = 4, 3, 6, 9


def a_batch(negatives: list[int], log_q: bool = False) -> LossInputs:
    torch.manual_seed(1)
    table = torch.randn(N + 1, D, dtype=torch.float64)
    interests = torch.randn(B, K, D, dtype=torch.float64, requires_grad=True)
    rows = torch.randint(1, N + 1, (B, 2))
    attention = torch.rand(B, K, 2, dtype=torch.float64).softmax(dim=2)
    targets = torch.tensor([1, 4, 4, 9])
    drawn = torch.tensor(negatives)
    return LossInputs(
        History(rows, table[rows], rows > 0),
        Interests(interests, attention, interests),
        targets,
        table[targets],
        drawn,
        table[drawn],
        torch.randn(B, dtype=torch.float64) if log_q else None,
        torch.randn(len(drawn), dtype=torch.float64) if log_q else None,
    )


def negatives_of(batch: LossInputs, b: int) -> list[tuple[Tensor, float]]:
    """Vector and correction of those that are not the target."""
    corrections = [0.0] * len(batch.negatives)
    if batch.negative_log_q is not None:
        corrections = batch.negative_log_q.tolist()
    return [
        (vector, correction)
        for row, vector, correction in zip(
            batch.negatives, batch.negative_vectors, corrections, strict=True
        )
        if row != batch.targets[b]
    ]


def nll(target: float, negatives: list[float]) -> float:
    return math.log(math.exp(target) + sum(map(math.exp, negatives))) - target


def correction(batch: LossInputs, b: int) -> float:
    return 0.0 if batch.target_log_q is None else batch.target_log_q[b].item()


def slow(batch: LossInputs, score: Any) -> float:
    """score(b, vector) -> the logit of an item for example b."""
    losses = [
        nll(
            score(b, batch.target_vectors[b]) - correction(batch, b),
            [score(b, vector) - q for vector, q in negatives_of(batch, b)],
        )
        for b in range(B)
    ]
    return sum(losses) / B


def hard(batch: LossInputs) -> Any:
    chosen = [
        max(batch.interests.vectors[b], key=lambda z, b=b: (z @ batch.target_vectors[b]).item())
        for b in range(B)
    ]
    return lambda b, vector: (chosen[b] @ vector).item()


@pytest.mark.parametrize("all_positions", [False, True])
@pytest.mark.parametrize("log_q", [False, True])
def test_losses_agree_with_loops(log_q, all_positions):
    batch = a_batch([4, 2, 2, 7, 1], log_q)
    if all_positions:
        batch = batch._replace(interests=prefixes(batch.interests.vectors))
    assert batch.all_positions == all_positions
    z = batch.interests.vectors

    def best(b: int, vector: Tensor) -> float:
        return (z[b] @ vector).max().item()

    def soft(b: int, vector: Tensor) -> float:
        return (z[b] @ vector).logsumexp(dim=0).item()

    expected = {HardReadoutSoftmax.build({}): hard(batch), ServedMax(): best, MultiLoss(): soft}
    for term, score in expected.items():
        assert term(batch).item() == pytest.approx(slow(batch, score), rel=1e-9)


@pytest.mark.parametrize("beta", [0.0, 1.0, 10.0])
def test_hard_negatives_agree_with_loops(beta):
    batch = a_batch([4, 2, 2, 7, 1])
    score = hard(batch)
    losses = []
    for b in range(B):
        scores = [score(b, vector) for vector, _ in negatives_of(batch, b)]
        weights = [math.exp(beta * s) for s in scores]
        hardened = sum(w / sum(weights) * math.exp(s) for w, s in zip(weights, scores, strict=True))
        target = score(b, batch.target_vectors[b])
        losses.append(math.log(math.exp(target) + len(scores) * hardened) - target)
    assert HardNegatives.build({"ihn_beta": beta})(batch).item() == pytest.approx(
        sum(losses) / B, rel=1e-9
    )


def test_beta_0_is_the_plain_softmax():
    batch = a_batch([4, 2, 2, 7, 1])
    assert HardNegatives.build({"ihn_beta": 0.0})(batch).item() == pytest.approx(
        HardReadoutSoftmax.build({})(batch).item(), rel=1e-9
    )


def test_routing_regularizer_agrees_with_loops():
    batch = a_batch([2])
    total = 0.0
    for attention in batch.interests.attention:
        for share in attention:
            total += ((share - share.mean()).square().sum().item() / D) ** 2
    assert RoutingRegularizer()(batch).item() == pytest.approx(total / B, rel=1e-9)


def test_only_the_selected_interest_gets_gradient():
    batch = a_batch([2, 3])
    HardReadoutSoftmax.build({})(batch).backward()
    moved = batch.interests.vectors.grad.abs().sum(dim=2) > 0
    assert moved.sum(dim=1).tolist() == [1] * B
    assert moved.int().argmax(dim=1).tolist() == target_scores(batch).argmax(dim=1).tolist()


def test_served_max_penalizes_every_interest_that_scores_a_negative_high():
    batch = a_batch([2, 3, 5, 6, 7, 8])
    ServedMax()(batch).backward()
    learning = (batch.interests.vectors.grad.abs().sum(dim=2) > 0).sum(dim=1)
    assert learning.min() > 1


def test_served_scores_and_their_gradients_are_those_of_the_plain_maximum():
    torch.manual_seed(2)
    users = 70  # more than one block, and no multiple of it
    interests = torch.randn(users, K, D, dtype=torch.float64, requires_grad=True)
    items = torch.randn(N, D, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(users, N, dtype=torch.float64)
    fast, plain = served_scores(interests, items), (interests @ items.T).max(dim=1).values
    torch.testing.assert_close(fast, plain)
    gradients = (
        torch.autograd.grad((scores * weights).sum(), (interests, items))
        for scores in (fast, plain)
    )
    for given, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(given, expected)


def bam(selection: str, inverse_temperature: float = 1.0) -> HardReadoutSoftmax:
    settings = {
        "interest_selection": selection,
        "selection_inverse_temperature": inverse_temperature,
        "dim": D,
    }
    return HardReadoutSoftmax.build(settings)


@pytest.mark.parametrize("selection", ["bam-p", "bam-l"])
def test_bam_draws_interests_in_proportion(selection):
    torch.manual_seed(0)
    term = bam(selection, 0.7).double()
    batch = a_batch([2, 3])
    logits = target_scores(batch) if selection == "bam-p" else term._learned_logits(batch)
    expected = (0.7 * logits).softmax(dim=1)
    drawn = torch.stack([term._select(batch) for _ in range(4000)])
    share = torch.stack([(drawn == k).double().mean(dim=0) for k in range(K)], dim=1)
    torch.testing.assert_close(share, expected, atol=0.04, rtol=0)


def test_bam_l_is_trained_only_under_its_own_name():
    for selection, learns in [("bam-l", False), ("bam-l-trained", True)]:
        term = bam(selection).double()
        term(a_batch([2, 3])).backward()
        grad = term.interest_projection.weight.grad
        assert (grad is not None and bool(grad.any())) == learns


def test_bam_l_trained_is_the_expected_loss():
    torch.manual_seed(0)
    term = bam("bam-l-trained").double()
    batch = a_batch([4, 2, 7])
    share = term._learned_logits(batch).softmax(dim=1)
    expected = 0.0
    for b in range(B):
        for k in range(K):
            z = batch.interests.vectors[b, k]
            scores = [(z @ vector).item() for vector, _ in negatives_of(batch, b)]
            expected += share[b, k].item() * nll((z @ batch.target_vectors[b]).item(), scores) / B
    assert term(batch).item() == pytest.approx(expected, rel=1e-9)


def test_full_sampler_gives_the_exact_softmax():
    batch = a_batch(full(N)(torch.tensor([1])).rows.tolist())
    chosen = gather_interests(batch.interests.vectors, target_scores(batch).argmax(dim=1))
    logits = chosen @ batch.negative_vectors.T
    exact = torch.nn.functional.cross_entropy(logits, batch.targets - 1)
    assert HardReadoutSoftmax.build({})(batch).item() == pytest.approx(exact.item(), rel=1e-9)


def test_objective_adds_weighted_terms_and_skips_those_of_coefficient_0():
    class Boom(HardReadoutSoftmax):
        def forward(self, batch: LossInputs) -> Tensor:
            raise AssertionError("a term of coefficient 0 was computed")

    loss, terms = Objective(
        {
            "a": (1.0, HardReadoutSoftmax.build({})),
            "b": (0.5, HardReadoutSoftmax.build({})),
            "c": (0.0, Boom.build({})),
        }
    )(a_batch([2, 3]))
    assert set(terms) == {"a", "b"}
    assert loss.item() == pytest.approx(1.5 * terms["a"].item())


def test_the_order_of_the_terms_is_fixed():
    """The order decides the sum of the loss and the random draws: another one, other weights."""
    names = ["multi_loss", "recontrast", "reattend", "reconstruct", "routing_reg_weight"]
    names.append("mutual_information")
    assert list(AUXILIARY_LOSSES) == names
    settings = ModelOptions().model_dump() | dict.fromkeys(names, 0.5)
    assert list(build_objective(settings)._terms) == ["served-max", *names]


def test_a_coefficient_of_0_changes_no_random_draw():
    states = []
    for coefficient in (0.0, 0.5):
        torch.manual_seed(0)
        build_objective(ModelOptions().model_dump() | {"reconstruct": coefficient})
        states.append(torch.get_rng_state())
    assert torch.equal(*states)

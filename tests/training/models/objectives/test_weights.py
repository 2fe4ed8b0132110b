"""The weights of targets in the main losses, against one example at a time, in float64."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from index.encoders import History, Interests
from training.models.objectives import LossInputs
from training.models.objectives.bam import MultiLoss
from training.models.objectives.interface import LossTerm, weighted_mean
from training.models.objectives.remi import HardNegatives
from training.models.objectives.set_matching import SetMatching
from training.models.objectives.several_interests import GatedMax, PartitionedMax
from training.models.objectives.softmax import HardReadoutSoftmax, ServedMax
from training.models.objectives.timirec import TargetInterest

B, K, W, D, N = 6, 3, 2, 5, 9
WEIGHTS = [0.2, 1.0, 3.0, 1.0, 0.2, 7.0]
TERMS: dict[str, LossTerm] = {
    "softmax": HardReadoutSoftmax.build({"dim": D}),
    "bam-l-trained": HardReadoutSoftmax.build(
        {"dim": D, "interest_selection": "bam-l-trained"}
    ).double(),
    "served-max": ServedMax.build({}),
    "gated-max": GatedMax.build({}),
    "partitioned-max": PartitionedMax.build({}),
    "hard-negatives": HardNegatives.build({}),
    "target-interest": TargetInterest.build({"pretrain_epochs": 1}),
    "distillation": TargetInterest.build({"pretrain_epochs": 0}),
    "set-matching": SetMatching.build({"future_items": W}),
    "multi_loss": MultiLoss.build({}),
}


def a_batch(all_positions: bool = False, dtype: torch.dtype = torch.float64) -> LossInputs:
    """No negative is a target: then each example has as many pairs."""
    torch.manual_seed(1)
    table = torch.randn(N + 1, D, dtype=dtype)
    interests = torch.randn(B, K, D, dtype=dtype, requires_grad=True)
    prediction = torch.randn(B, K, dtype=dtype)
    futures = torch.tensor([[1, 2], [4, 0], [4, 3], [3, 1], [2, 4], [1, 0]])
    targets, negatives = futures[:, 0].contiguous(), torch.tensor([5, 7, 5, 8, 9])
    rows = torch.ones(B, 2, dtype=torch.int64)
    attention = torch.ones(B, K, 0 if all_positions else 2, dtype=dtype)
    return LossInputs(
        History(rows, table[rows], rows > 0),
        Interests(interests, attention, interests, prediction),
        targets,
        table[targets],
        negatives,
        table[negatives],
        target_parts=targets % K,
        negative_parts=negatives % K,
        futures=futures,
        future_vectors=table[futures],
    )


def with_weights(batch: LossInputs, weights: list[float], later: float) -> LossInputs:
    """later: the weight of each second of the next items."""
    first = torch.tensor(weights, dtype=batch.target_vectors.dtype)
    return batch._replace(
        weights=first, future_weights=torch.stack([first, torch.full_like(first, later)], dim=1)
    )


def one_by_one(batch: LossInputs) -> Iterator[LossInputs]:
    for b in range(B):
        own = slice(b, b + 1)
        history, interests = batch.history, batch.interests
        assert batch.target_parts is not None
        assert batch.futures is not None
        assert batch.future_vectors is not None
        yield batch._replace(
            history=History(*(part[own] for part in history[:3])),
            interests=Interests(*(None if part is None else part[own] for part in interests)),
            targets=batch.targets[own],
            target_vectors=batch.target_vectors[own],
            target_parts=batch.target_parts[own],
            futures=batch.futures[own],
            future_vectors=batch.future_vectors[own],
        )


def mixed_alone(name: str, batch: LossInputs) -> LossInputs:
    """The batch of an encoder that serves one mixture of its interests."""
    if name != "distillation":
        return batch
    vectors = batch.interests.vectors.mean(dim=1, keepdim=True)
    return batch._replace(interests=batch.interests._replace(vectors=vectors))


@pytest.mark.parametrize("all_positions", [False, True])
@pytest.mark.parametrize("name", TERMS)
def test_the_loss_is_the_weighted_mean_of_the_examples(name: str, all_positions: bool) -> None:
    batch, term = mixed_alone(name, a_batch(all_positions)), TERMS[name]
    if name == "set-matching":  # whose examples have one pair, or two
        assert batch.futures is not None
        batch = batch._replace(futures=batch.futures * torch.tensor([1, 0]))
    losses = [term(alone).item() for alone in one_by_one(batch)]
    expected = sum(w * loss for w, loss in zip(WEIGHTS, losses, strict=True)) / sum(WEIGHTS)
    weighted = term(with_weights(batch, WEIGHTS, 0.5))
    assert weighted.item() == pytest.approx(expected, rel=1e-9)
    assert weighted.item() != pytest.approx(term(batch).item(), rel=1e-3)


def test_each_of_the_next_items_has_its_own_weight() -> None:
    batch, term = a_batch(), TERMS["set-matching"]
    assert batch.futures is not None
    losses, weights = [], []
    for alone, weight in zip(one_by_one(batch), WEIGHTS, strict=True):
        assert alone.futures is not None
        pairs = 1 + int(alone.futures[0, 1] > 0)
        zero, one = torch.tensor(0.0).double(), torch.tensor(1.0).double()
        # The matching is of the whole set: the loss of one of its pairs has all the weight.
        for position, own in list(enumerate((weight, 0.5)))[:pairs]:
            only = torch.stack([one if w == position else zero for w in range(W)])[None]
            losses.append(term(alone._replace(future_weights=only)).item() * own)
            weights.append(own)
    expected = sum(losses) / sum(weights)
    assert term(with_weights(batch, WEIGHTS, 0.5)).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("all_positions", [False, True])
@pytest.mark.parametrize("name", TERMS)
def test_weights_of_1_change_no_digit(name: str, all_positions: bool, dtype: torch.dtype) -> None:
    results: list[list[Tensor]] = []
    for weighted in (False, True):
        batch = a_batch(all_positions, dtype)
        served = mixed_alone(name, batch)
        term = TERMS[name].to(dtype)
        term.zero_grad()
        loss = term(with_weights(served, [1.0] * B, 1.0) if weighted else served)
        loss.backward()
        gradient = batch.interests.raw.grad
        assert gradient is not None
        results.append([loss.detach(), gradient, *(p.grad for p in term.parameters())])
        term.double()
    for plain, weighted_result in zip(*results, strict=True):
        assert torch.equal(plain, weighted_result)


def test_without_weights_the_mean_has_the_digits_of_torch() -> None:
    losses = torch.randn(1000, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (plain,) = torch.autograd.grad(losses.square().mean(), losses)
    (ours,) = torch.autograd.grad(weighted_mean(losses.square(), None), losses)
    assert torch.equal(plain, ours)
    assert losses.mean() == weighted_mean(losses, None)


def test_a_heavier_target_teaches_more() -> None:
    batch = a_batch()
    ServedMax()(with_weights(batch, WEIGHTS, 1.0)).backward()
    weighted = batch.interests.vectors.grad
    plain_batch = a_batch()
    ServedMax()(plain_batch).backward()
    plain = plain_batch.interests.vectors.grad
    assert plain is not None
    assert weighted is not None
    shares = torch.tensor(WEIGHTS, dtype=torch.float64) * B / sum(WEIGHTS)
    torch.testing.assert_close(weighted, plain * shares[:, None, None])

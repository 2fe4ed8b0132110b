"""The losses of interests that differ, against loops over examples and items, in float64."""

import math

import pytest
import torch
from torch import Tensor

from index.encoders import History, Interests
from training.config import FitConfig
from training.data.examples import Examples
from training.models.model import Model
from training.models.objectives import LossInputs
from training.models.objectives.several_interests import (
    GatedMax,
    MutualInformation,
    PartitionedMax,
)

B, K, D, N = 4, 3, 6, 9


def a_batch(log_q: bool = False) -> LossInputs:
    torch.manual_seed(1)
    table = torch.randn(N + 1, D, dtype=torch.float64)
    parts = torch.tensor([0, 2, 0, 1, 1, 0, 2, 1, 2, 0])
    interests = torch.randn(B, K, D, dtype=torch.float64, requires_grad=True)
    gate = torch.randn(B, K, dtype=torch.float64)
    targets, negatives = torch.tensor([1, 4, 4, 9]), torch.tensor([4, 2, 2, 7, 1, 8])
    rows = torch.ones(B, 2, dtype=torch.int64)
    return LossInputs(
        History(rows, table[rows], rows > 0),
        Interests(interests, torch.ones(B, K, 2), interests, gate),
        targets,
        table[targets],
        negatives,
        table[negatives],
        torch.randn(B, dtype=torch.float64) if log_q else None,
        torch.randn(len(negatives), dtype=torch.float64) if log_q else None,
        parts[targets],
        parts[negatives],
    )


def softmax_loop(batch: LossInputs, target: list[float], negative: list[list[float]]) -> float:
    losses = []
    for b in range(B):
        q = 0.0 if batch.target_log_q is None else batch.target_log_q[b].item()
        of_target = math.exp(target[b] - q)
        total = of_target
        for j, row in enumerate(batch.negatives.tolist()):
            if row != batch.targets[b]:
                q = 0.0 if batch.negative_log_q is None else batch.negative_log_q[j].item()
                total += math.exp(negative[b][j] - q)
        losses.append(-math.log(of_target / total))
    return sum(losses) / B


@pytest.mark.parametrize("log_q", [False, True])
def test_partitioned_max_scores_an_item_with_the_interest_of_its_part(log_q: bool) -> None:
    batch = a_batch(log_q)
    z = batch.interests.vectors
    assert batch.target_parts is not None
    assert batch.negative_parts is not None
    target = [(z[b, batch.target_parts[b]] @ batch.target_vectors[b]).item() for b in range(B)]
    negative = [
        [
            (z[b, part] @ e).item()
            for part, e in zip(batch.negative_parts, batch.negative_vectors, strict=True)
        ]
        for b in range(B)
    ]
    expected = softmax_loop(batch, target, negative)
    assert PartitionedMax()(batch).item() == pytest.approx(expected, rel=1e-9)


def test_mutual_information_agrees_with_loops() -> None:
    batch = a_batch()
    z = batch.interests.vectors.detach()
    shares = []
    for b in range(B):
        weights = [math.exp(z[b, k] @ batch.target_vectors[b]) for k in range(K)]
        shares.append([w / sum(weights) for w in weights])
    mean = [sum(share[k] for share in shares) / B for k in range(K)]
    expected = sum(map(entropy, shares)) / B - entropy(mean)
    ungated = batch._replace(interests=batch.interests._replace(prediction=None))
    assert MutualInformation()(ungated).item() == pytest.approx(expected, rel=1e-9)


def test_a_gate_has_no_part_in_the_mutual_information() -> None:
    """Interests with the gate as one more coordinate, and items with 1 there."""
    batch = a_batch()
    gate = batch.interests.prediction
    assert gate is not None
    gated = torch.cat((batch.interests.vectors, gate.log_softmax(dim=1)[:, :, None]), dim=2)
    one = torch.ones(B, 1, dtype=torch.float64)
    with_gate = batch._replace(
        interests=batch.interests._replace(vectors=gated),
        target_vectors=torch.cat((batch.target_vectors, one), dim=1),
    )
    plain = batch._replace(interests=batch.interests._replace(prediction=None))
    assert MutualInformation()(with_gate).item() == pytest.approx(
        MutualInformation()(plain).item(), rel=1e-9
    )


def entropy(share: list[float]) -> float:
    return -sum(p * math.log(p) for p in share)


def a_model(**settings: object) -> tuple[Model, LossInputs]:
    """A small model in evaluation mode, and what its objective sees of a batch."""
    common = {"dim": D, "interests": K, "history": 4, "score_temperature": 0.2, "sampler": "full"}
    config = FitConfig.model_validate({**common, "hidden": 8, "heads": 1, **settings})
    torch.manual_seed(3)
    model = Model(config, torch.arange(N + 1)).eval()
    model.start_epoch()
    seen: list[LossInputs] = []
    model.objective.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(Examples(torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]]), torch.tensor([8, 9])))
    return model, seen[0]


@pytest.mark.parametrize("encoder", ["re4", "transformer"])
def test_gated_max_is_the_softmax_of_the_maximum_with_the_gate(encoder: str) -> None:
    model, batch = a_model(encoder=encoder, objective="gated-max")
    content, gate = batch.interests.raw, batch.interests.prediction
    assert gate is not None
    z = torch.nn.functional.normalize(content, dim=2) / 0.2
    e = torch.nn.functional.normalize(model.weight, dim=1)
    scores = (z @ e.T + gate.log_softmax(dim=1)[:, :, None]).max(dim=1).values
    expected = torch.nn.functional.cross_entropy(scores[:, 1:], batch.targets - 1)
    torch.testing.assert_close(GatedMax()(batch), expected)


@pytest.mark.parametrize("encoder", ["re4", "transformer"])
@pytest.mark.parametrize("item_bias", [False, True])
def test_the_plain_maximum_of_what_is_served_is_the_score_of_the_own_part(
    encoder: str, item_bias: bool
) -> None:
    """Also with the weakest own interest: the barrier is more than cosines can make up."""
    model, batch = a_model(encoder=encoder, objective="partitioned-max", item_bias=item_bias)
    vectors = torch.from_numpy(model.vectors())
    served = (batch.interests.vectors @ vectors.T).max(dim=1)
    assert isinstance(model.terms.parts, Tensor)
    assert (served.indices[:, 1:] == model.terms.parts[1:]).all()
    z = torch.nn.functional.normalize(batch.interests.raw, dim=2) / 0.2
    e = torch.nn.functional.normalize(model.weight, dim=1)[1:]
    for row in range(1, N + 1):
        own = z[:, model.terms.parts[row]] @ e[row - 1]
        bias = model.terms.bias[row] if model.terms.bias is not None else 0.0
        torch.testing.assert_close(served.values[:, row], own + bias)
    loss = torch.nn.functional.cross_entropy(served.values[:, 1:], batch.targets - 1)
    torch.testing.assert_close(PartitionedMax()(batch), loss)
    opposite = batch.interests.vectors.clone()
    opposite[..., :D] = -vectors[8, :D] / 0.2
    part = int(model.terms.parts[8])
    opposite[:, [k for k in range(K) if k != part], :D] *= -1
    assert ((opposite @ vectors[8]).argmax(dim=1) == part).all()

"""TiMiRec's two stages against loops."""

import math

import pytest
import torch

from index.encoders import History, Interests
from training.models.objectives import LossInputs
from training.models.objectives.timirec import TargetInterest

B, K, D = 3, 4, 5


def a_batch() -> LossInputs:
    torch.manual_seed(2)
    table = torch.randn(9, D, dtype=torch.float64)
    raw = torch.randn(B, K, D, dtype=torch.float64, requires_grad=True)
    prediction = torch.randn(B, K, dtype=torch.float64, requires_grad=True)
    mixed = prediction.softmax(dim=1)[:, None, :] @ raw
    rows = torch.ones(B, 2, dtype=torch.int64)
    targets, negatives = torch.tensor([1, 2, 3]), torch.tensor([2, 5, 6])
    interests = Interests(mixed, torch.full((B, 1, 2), 0.5), raw, prediction)
    history = History(rows, table[rows], rows > 0)
    return LossInputs(history, interests, targets, table[targets], negatives, table[negatives])


def a_term(temperature: float, pretrain_epochs: int) -> TargetInterest:
    settings = {"distillation_temperature": temperature, "pretrain_epochs": pretrain_epochs}
    return TargetInterest.build(settings)


def slow_ranking(batch: LossInputs, vectors: list[torch.Tensor]) -> float:
    losses = []
    for b, u in enumerate(vectors):
        for row, negative in zip(batch.negatives, batch.negative_vectors, strict=True):
            if row != batch.targets[b]:
                gap = (u @ batch.target_vectors[b] - u @ negative).item()
                losses.append(-math.log(1 / (1 + math.exp(-gap))))
    return sum(losses) / len(losses)


def test_stage_1_ranks_by_the_interest_nearest_the_target():
    batch = a_batch()
    nearest = [
        max(batch.interests.raw[b], key=lambda z, b=b: (z @ batch.target_vectors[b]).item())
        for b in range(B)
    ]
    term = a_term(0.5, 1)
    assert term(batch).item() == pytest.approx(slow_ranking(batch, nearest), rel=1e-9)


def test_stage_2_ranks_by_the_mixture_and_distils():
    batch, tau = a_batch(), 0.5
    expected = slow_ranking(batch, list(batch.interests.vectors[:, 0]))
    for b in range(B):
        e = batch.target_vectors[b]
        c = [(z @ e / z.norm() / e.norm()).item() for z in batch.interests.raw[b]]
        p = batch.interests.prediction[b].tolist()
        teacher, student = (
            [math.exp(x / tau) / sum(math.exp(y / tau) for y in logits) for x in logits]
            for logits in (c, p)
        )
        divergence = sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True))
        expected += tau**2 * divergence / B
    term = a_term(tau, 1)
    term.start_epoch(1)
    assert term(batch).item() == pytest.approx(expected, rel=1e-9)


def test_an_encoder_without_predictions_is_refused():
    batch = a_batch()
    plain = batch._replace(interests=batch.interests._replace(prediction=None))
    with pytest.raises(ValueError, match="use encoder timirec"):
        a_term(0.5, 0)(plain)

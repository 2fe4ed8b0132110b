"""TiMiRec's two stages against loops."""

import math

import pytest
import torch

from index.encoders import History, Interests
from training.models.objectives import Forward
from training.models.objectives.timirec import TargetInterest

B, K, D = 3, 4, 5


def a_batch() -> Forward:
    torch.manual_seed(2)
    table = torch.randn(9, D, dtype=torch.float64)
    raw = torch.randn(B, K, D, dtype=torch.float64, requires_grad=True)
    prediction = torch.randn(B, K, dtype=torch.float64, requires_grad=True)
    mixed = prediction.softmax(dim=1)[:, None, :] @ raw
    rows = torch.ones(B, 2, dtype=torch.int64)
    targets, negatives = torch.tensor([1, 2, 3]), torch.tensor([2, 5, 6])
    interests = Interests(mixed, torch.full((B, 1, 2), 0.5), raw, prediction)
    history = History(rows, table[rows], rows > 0)
    return Forward(history, interests, targets, table[targets], negatives, table[negatives])


def slow_ranking(batch: Forward, vectors: list[torch.Tensor]) -> float:
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
    term = TargetInterest(0.5, pretrain=1)
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
    term = TargetInterest(tau, pretrain=1)
    term.start_epoch(1)
    assert term(batch).item() == pytest.approx(expected, rel=1e-9)


def test_only_an_encoder_that_predicts_will_do():
    batch = a_batch()
    plain = batch._replace(interests=batch.interests._replace(prediction=None))
    with pytest.raises(ValueError, match="use encoder timirec"):
        TargetInterest(0.5, pretrain=0)(plain)

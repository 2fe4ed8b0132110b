"""The backward flows against the slow and obvious: loops over cells, in float64."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from index.encoders import History, Interests, build_encoder
from training.models.objectives import LossInputs
from training.models.objectives.re4 import ReAttend, ReConstruct, ReContrast

B, L, K, D, S = 5, 6, 3, 8, 7


@pytest.fixture
def batch() -> LossInputs:
    """Histories of 1 to L items, one item shared by two neighbours, in float64."""
    torch.manual_seed(3)
    table = torch.randn(40, D, dtype=torch.float64)
    table[0] = 0
    rows = torch.zeros(B, L, dtype=torch.int64)
    for index, length in enumerate([6, 1, 3, 4, 2]):
        rows[index, L - length :] = torch.randint(1, 40, (length,))
    rows[3, -1] = rows[2, -1]
    vectors = table[rows].requires_grad_()
    encoder = build_encoder(
        "re4", {"dim": D, "interests": K, "hidden": 12, "head": "tanh"}
    ).double()
    history = History(rows, vectors, rows > 0)
    targets, negatives = torch.randint(1, 40, (B,)), torch.randint(1, 40, (S,))
    return LossInputs(
        history, encoder(history), targets, table[targets], negatives, table[negatives]
    )


def with_attention(batch: LossInputs, attention: Tensor) -> LossInputs:
    return batch._replace(interests=batch.interests._replace(attention=attention))


def recontrast(**settings: Any) -> ReContrast:
    return ReContrast.build({"recontrast_temperature": 0.5, **settings})


def reconstruct(**settings: Any) -> ReConstruct:
    return ReConstruct.build({"dim": D, "history": L, **settings}).double()


def positive(batch: LossInputs, b: int, k: int, j: int, gamma: float | None) -> bool:
    valid = int(batch.history.mask[b].sum())
    share = batch.interests.attention[b, k, j].item()
    return bool(batch.history.mask[b, j]) and share > (1 / valid if gamma is None else gamma)


def cosine(a: Tensor, b: Tensor) -> float:
    return (a @ b / a.norm() / b.norm()).item()


def slow_recontrast(
    batch: LossInputs, tau: float, gamma: float | None, contrast: str
) -> list[float]:
    rows, x, mask = batch.history[:3]
    z = batch.interests.raw
    losses = []
    for b in range(B):
        neighbour = (b - 1) % B
        for k in range(K):
            own = {j: cosine(z[b, k], x[b, j]) / tau for j in range(L) if mask[b, j]}
            chosen = [j for j in own if positive(batch, b, k, j, gamma)]
            negatives = [s for j, s in own.items() if j not in chosen or contrast == "released"]
            negatives += [cosine(z[b, k], z[b, o]) / tau for o in range(K) if o != k]
            negatives += [
                cosine(z[b, k], x[neighbour, j]) / tau
                for j in range(L)
                if mask[neighbour, j] and rows[neighbour, j] not in rows[b]
            ]
            for j in chosen:
                total = sum(math.exp(s - own[j]) for s in negatives)
                losses.append(math.log(total + (contrast == "paper")))
    return losses


def slow_reattend(batch: LossInputs) -> float:
    _, x, mask = batch.history[:3]
    total = 0.0
    for b in range(B):
        valid = [j for j in range(L) if mask[b, j]]
        for k in range(K):
            scores = {j: (batch.interests.raw[b, k] @ x[b, j]).item() for j in valid}
            norm = sum(math.exp(s) for s in scores.values())
            for j in valid:
                expected = math.exp(scores[j]) / norm
                total -= expected * math.log(batch.interests.attention[b, k, j].item())
    return total / (B * K)


def slow_reconstruct(batch: LossInputs, term: ReConstruct, gamma: float | None) -> list[float]:
    _, x, _ = batch.history[:3]
    losses = []
    for b in range(B):
        for k in range(K):
            c = (term.upsample.weight @ batch.interests.raw[b, k]).reshape(L, -1)
            for j in range(L):
                if not positive(batch, b, k, j, gamma):
                    continue
                logits = [
                    (term.position.weight[j] @ torch.tanh(term.mix.weight @ c[i])).item()
                    for i in range(L)
                ]
                norm = sum(math.exp(logit) for logit in logits)
                restored = sum(
                    math.exp(logits[i]) / norm * (term.restore.weight @ c[i]) for i in range(L)
                )
                losses.append((restored - x[b, j]).square().sum().item())
    return losses


@pytest.mark.parametrize("norm", ["positives", "cells"])
@pytest.mark.parametrize("gamma", [None, 0.25])
@pytest.mark.parametrize("contrast", ["paper", "released"])
def test_recontrast_agrees_with_loops(batch, contrast, gamma, norm):
    losses = slow_recontrast(batch, 0.5, gamma, contrast)
    count = len(losses) if norm == "positives" else B * K * L
    assert losses
    fast = recontrast(gamma=gamma, auxiliary_norm=norm, recontrast_denominator=contrast)(batch)
    assert fast.item() == pytest.approx(sum(losses) / count, rel=1e-9)


def test_reattend_agrees_with_loops(batch):
    assert ReAttend()(batch).item() == pytest.approx(slow_reattend(batch), rel=1e-9)


@pytest.mark.parametrize("norm", ["positives", "cells"])
@pytest.mark.parametrize("gamma", [None, 0.25])
def test_reconstruct_agrees_with_loops(batch, gamma, norm):
    term = reconstruct(reconstruct_hidden=5, gamma=gamma, auxiliary_norm=norm)
    losses = slow_reconstruct(batch, term, gamma)
    count = len(losses) if norm == "positives" else B * K * L
    assert losses
    assert term(batch).item() == pytest.approx(sum(losses) / count, rel=1e-9)


def test_reattend_is_minimal_where_the_attention_is_the_softmax_of_the_scores(batch):
    _, x, mask = batch.history[:3]
    scores = (batch.interests.raw @ x.transpose(1, 2)).masked_fill(~mask[:, None, :], -torch.inf)
    expected = scores.softmax(dim=2)
    entropy = -(expected * expected.clamp_min(1e-300).log()).sum(dim=2).mean().item()
    assert ReAttend()(batch).item() > entropy
    assert ReAttend()(with_attention(batch, expected)).item() == pytest.approx(entropy, rel=1e-9)


@pytest.mark.parametrize("term", [ReContrast.build({}), reconstruct()])
def test_a_history_of_one_item_has_no_positive(batch, term):
    rows, x, mask = (part[1:2] for part in batch.history[:3])
    interests = Interests(*(part[1:2] for part in batch.interests[:3]))
    one = batch._replace(history=History(rows, x, mask), interests=interests)
    assert term(one).item() == 0


@pytest.mark.parametrize(
    "term",
    [recontrast(), ReAttend(), reconstruct()],
    ids=lambda t: type(t).__name__,
)
def test_gradient_reaches_forward_flow_and_items(term):
    torch.manual_seed(0)
    encoder = build_encoder("re4", {"dim": D, "interests": K, "hidden": 12}).double()
    rows = torch.randint(1, 40, (B, L))
    vectors = torch.randn(B, L, D, dtype=torch.float64, requires_grad=True)
    history = History(rows, vectors, rows > 0)
    none = torch.zeros(0, dtype=torch.float64)
    term(LossInputs(history, encoder(history), rows[:, 0], none, rows[0], none)).backward()
    reached = {
        name for name, p in encoder.named_parameters() if p.grad is not None and p.grad.any()
    }
    # Positives are chosen by the attention without gradient; it learns through the interests.
    assert reached == {"project.weight", "score.weight", "value.weight"}
    assert vectors.grad.any()

"""Set matching against a loop over all assignments, in float64."""

import math
from itertools import permutations

import pytest
import torch

from index.encoders import History, Interests
from training.config import ConfigError, read_config
from training.models.objectives import LossInputs
from training.models.objectives.set_matching import SetMatching, next_items

B, K, W, D, N = 4, 3, 2, 5, 9
FUTURES = [[1, 2], [4, 0], [9, 3], [5, 6]]


def a_batch() -> LossInputs:
    torch.manual_seed(1)
    table = torch.randn(N + 1, D, dtype=torch.float64)
    interests = torch.randn(B, K, D, dtype=torch.float64, requires_grad=True)
    futures, negatives = torch.tensor(FUTURES), torch.tensor([4, 2, 7, 1, 8])
    rows = torch.ones(B, 2, dtype=torch.int64)
    return LossInputs(
        History(rows, table[rows], rows > 0),
        Interests(interests, torch.ones(B, K, 2), interests),
        futures[:, 0],
        table[futures[:, 0]],
        negatives,
        table[negatives],
        futures=futures,
        future_vectors=table[futures],
    )


def test_the_matched_pairs_have_the_served_max_loss() -> None:
    batch = a_batch()
    assert batch.future_vectors is not None
    losses = []
    for b, z in enumerate(batch.interests.vectors.detach()):
        others = [
            vector
            for row, vector in zip(batch.negatives.tolist(), batch.negative_vectors, strict=True)
            if row not in FUTURES[b]
        ]
        served = sum(math.exp(max(float(z_k @ e) for z_k in z)) for e in others)
        items = [w for w in range(W) if FUTURES[b][w]]

        def cost(k: int, w: int, b: int = b, z: torch.Tensor = z, others: list = others) -> float:
            own = math.exp(z[k] @ batch.future_vectors[b, w])
            return -math.log(own / (own + sum(math.exp(z[k] @ e) for e in others)))

        best = min(
            permutations(range(K), len(items)),
            key=lambda chosen, items=items, cost=cost: sum(map(cost, chosen, items)),
        )
        for k, w in zip(best, items, strict=True):
            own = math.exp(z[k] @ batch.future_vectors[b, w])
            losses.append(-math.log(own / (own + served)))
    assert len(losses) == 7
    term = SetMatching.build({"future_items": W})
    assert term(batch).item() == pytest.approx(sum(losses) / len(losses), rel=1e-9)


def test_two_items_teach_two_interests() -> None:
    batch = a_batch()
    alone = batch._replace(
        negatives=batch.negatives[:0], negative_vectors=batch.negative_vectors[:0]
    )
    loss = SetMatching.build({"future_items": W})(alone)
    assert loss.item() == 0
    SetMatching.build({"future_items": W})(batch).backward()
    assert batch.interests.vectors.grad is not None
    taught = (batch.interests.vectors.grad.abs().sum(dim=2) > 0).sum(dim=1)
    assert taught[[0, 2, 3]].min() >= 2


def test_next_items_are_the_targets_from_a_position_on_each_once() -> None:
    targets = torch.tensor([[0, 5, 6, 5, 7], [0, 0, 0, 8, 9]])
    expected = [[5, 6, 0], [6, 5, 7], [5, 7, 0], [7, 0, 0], [8, 9, 0], [9, 0, 0]]
    assert next_items(targets, 3).tolist() == expected


def test_it_needs_all_positions_of_a_sequence() -> None:
    with pytest.raises(ConfigError, match="set positions = 'all'"):
        read_config(None, {"encoder": "sasrec", "objective": "set-matching", "positions": "last"})

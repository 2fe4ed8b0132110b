"""The main loss that teaches K interests several future items at once.

Shapes: B examples, K interests, W future items, D dimension, S negatives.
"""

import numpy as np
import torch
from pydantic import Field
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from training.models.objectives.interface import (
    LossArguments,
    LossInputs,
    LossTerm,
    weighted_mean,
)
from training.models.objectives.registry import register_main


@register_main("set-matching", "on the next items, each with an interest of its own")
class SetMatching(LossTerm):
    """The next W distinct items y_w claim interests one to one; then served-max on each pair.

    cost_kw = -log softmax(z_k . E)_{y_w}; a minimum-cost assignment (Kuhn, 1955) of the items to
    interests gives pairs (k, w), as boxes are assigned in DETR (Carion et al., 2020, Eq. 1).
    L = mean over pairs of -log(exp(z_k . e_w) / (exp(z_k . e_w) + sum_i exp(max_k z_k . e_i))),
    weighted by the items' event weights.
    No gradient passes the assignment. Negatives i are none of the W items. Published in no paper.
    """

    class Arguments(LossArguments):
        future_items: int = Field(
            3, ge=1, le=64, description="set-matching: W, number of next items that are learnt"
        )

    needs_positions = True

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        self.future_items = arguments.future_items

    def forward(self, batch: LossInputs) -> Tensor:
        assert batch.futures is not None
        assert batch.future_vectors is not None
        if batch.negative_log_q is not None:
            raise ValueError("set-matching: the sampler must be uniform or full")
        interests = batch.interests.vectors
        is_item = batch.futures > 0
        hits = (batch.futures[:, :, None] == batch.negatives).any(dim=1)
        negative = (interests @ batch.negative_vectors.T).masked_fill(hits[:, None], -torch.inf)
        scores = interests @ batch.future_vectors.transpose(1, 2)  # (B, K, W)
        cost = torch.logaddexp(scores, negative.logsumexp(dim=2, keepdim=True)) - scores
        cost = cost.detach().masked_fill(~is_item[:, None], 0)
        example, interest, item = assign(cost)
        matched = is_item[example, item]
        example, interest, item = example[matched], interest[matched], item[matched]
        score = scores[example, interest, item]
        others = negative.max(dim=1).values.logsumexp(dim=1)[example]
        weights = batch.future_weights
        pair_weights = None if weights is None else weights[example, item]
        return weighted_mean(torch.logaddexp(score, others) - score, pair_weights)


def assign(cost: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs of least cost of each example, cost (B, K, W): indices of example, row and column,
    each (B * min(K, W),)."""
    pairs = [np.stack(linear_sum_assignment(matrix)) for matrix in cost.float().cpu().numpy()]
    rows, columns = torch.from_numpy(np.concatenate(pairs, axis=1)).to(cost.device)
    examples = torch.arange(len(cost), device=cost.device).repeat_interleave(min(cost.shape[1:]))
    return examples, rows, columns


def next_items(targets: Tensor, count: int) -> Tensor:
    """The next `count` items after each position that has a target, each once: (P, count), 0 where
    the sequence ends or an item repeats.

    targets (B, L): the next item after each position, 0 = none.
    """
    futures = next_values(targets, targets > 0, count)
    earlier = torch.ones(count, count, dtype=torch.bool, device=targets.device).tril(-1)
    repeats = ((futures[:, :, None] == futures[:, None, :]) & earlier).any(dim=2)
    return futures.masked_fill(repeats, 0)


def next_values(values: Tensor, ends: Tensor, count: int) -> Tensor:
    """The `count` values from each position of `ends` on, values and ends (B, L): (P, count), 0
    where the sequence ends."""
    padded = torch.nn.functional.pad(values, (0, count))
    return padded.unfold(1, count, 1)[:, : values.shape[1]][ends]

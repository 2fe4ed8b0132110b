"""max_k z_k . e for every user and item, with its gradient, in little memory.

Shapes: B users, K interests, D dimension, S items.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

# On the CPU the scores of all interests then stay in its cache; a GPU needs more work at a time.
_USERS_PER_BLOCK = {"cpu": 32, "cuda": 1024}


def served_scores(interests: Tensor, items: Tensor) -> Tensor:
    """max_k z_k . e of interests (B, K, D) and items (S, D): (B, S)."""
    if torch.is_autocast_enabled(
        kind := interests.device.type
    ):  # which has no part in what follows
        interests, items = (each.to(torch.get_autocast_dtype(kind)) for each in (interests, items))
    result: Tensor = _ServedScores.apply(interests, items)  # type: ignore[no-untyped-call]
    return result


class _ServedScores(torch.autograd.Function):
    """Never holds the scores of all interests, which are K times as many."""

    @staticmethod
    def forward(ctx: FunctionCtx, interests: Tensor, items: Tensor) -> Tensor:
        best = interests.new_empty(len(interests), len(items))
        winners = torch.empty_like(best, dtype=torch.int64)
        for users in _blocks(interests):
            scores = interests[users].flatten(0, 1) @ items.T
            scores = scores.view(-1, interests.shape[1], len(items))
            torch.max(scores, dim=1, out=(best[users], winners[users]))
        ctx.save_for_backward(interests, items, winners)
        return best

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        interests, items, winners = ctx.saved_tensors
        (best_gradient,) = gradients
        interests_gradient = torch.empty_like(interests)
        items_gradient = torch.zeros_like(items)
        for users in _blocks(interests):
            vectors = interests[users]
            scores_gradient = vectors.new_zeros(*vectors.shape[:2], len(items))
            scores_gradient.scatter_(1, winners[users][:, None], best_gradient[users][:, None])
            flat = scores_gradient.flatten(0, 1)
            interests_gradient[users] = (flat @ items).view_as(vectors)
            items_gradient.addmm_(flat.T, vectors.flatten(0, 1))
        return interests_gradient, items_gradient


def _blocks(interests: Tensor) -> Iterator[slice]:
    size = _USERS_PER_BLOCK.get(interests.device.type, 32)
    return (slice(first, first + size) for first in range(0, len(interests), size))

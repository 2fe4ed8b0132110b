"""max_k z_k . e for every user and item, with its gradient, in little memory.

Shapes: B users, K interests, D dimension, S items.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

_USERS_PER_BLOCK = 32  # then the scores of all interests stay in the processor's cache


def served_scores(interests: Tensor, items: Tensor) -> Tensor:
    """max_k z_k . e of interests (B, K, D) and items (S, D): (B, S)."""
    result: Tensor = _ServedScores.apply(interests, items)  # type: ignore[no-untyped-call]
    return result


class _ServedScores(torch.autograd.Function):
    """Never holds the scores of all interests, which are K times as many."""

    @staticmethod
    def forward(ctx: FunctionCtx, interests: Tensor, items: Tensor) -> Tensor:
        best = interests.new_empty(len(interests), len(items))
        winners = torch.empty_like(best, dtype=torch.int64)
        for users in _blocks(len(interests)):
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
        for users in _blocks(len(interests)):
            vectors = interests[users]
            scores_gradient = vectors.new_zeros(*vectors.shape[:2], len(items))
            scores_gradient.scatter_(1, winners[users][:, None], best_gradient[users][:, None])
            flat = scores_gradient.flatten(0, 1)
            interests_gradient[users] = (flat @ items).view_as(vectors)
            items_gradient.addmm_(flat.T, vectors.flatten(0, 1))
        return interests_gradient, items_gradient


def _blocks(users: int) -> Iterator[slice]:
    return (slice(first, first + _USERS_PER_BLOCK) for first in range(0, users, _USERS_PER_BLOCK))

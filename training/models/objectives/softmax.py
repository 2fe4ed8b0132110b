"""The main loss: tell the next item from negatives by (sampled) softmax.

Terms differ in which interest, or interests, an item is scored with. Shapes: B batch, K interests,
D dimension, S negatives.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from training.models.objectives import Forward, LossTerm

Selection = Literal["hard", "bam-p", "bam-l", "bam-l-trained"]


def softmax_loss(batch: Forward, target_logits: Tensor, negative_logits: Tensor) -> Tensor:
    """Mean of -log softmax of the target (B,) among itself and its negatives (B, S).

    Logits are corrected for how often a row is drawn (logQ), and a negative that is the target
    itself is left out.
    """
    target_logits, negative_logits = corrected(batch, target_logits, negative_logits)
    total = torch.logaddexp(target_logits, negative_logits.logsumexp(dim=1))
    return (total - target_logits).mean()


def corrected(
    batch: Forward, target_logits: Tensor, negative_logits: Tensor
) -> tuple[Tensor, Tensor]:
    if batch.negative_log_q is not None and batch.target_log_q is not None:
        target_logits = target_logits - batch.target_log_q
        negative_logits = negative_logits - batch.negative_log_q
    accidental = batch.targets[:, None] == batch.negatives
    return target_logits, negative_logits.masked_fill(accidental, -torch.inf)


def take(interests: Tensor, which: Tensor) -> Tensor:
    """interests (B, K, D), which (B,) -> (B, D)."""
    return interests[torch.arange(len(interests), device=interests.device), which]


def target_scores(batch: Forward) -> Tensor:
    """(B, K): z_k . e."""
    return (batch.interests.vectors @ batch.target_vectors[:, :, None]).squeeze(2)


class HardReadoutSoftmax(LossTerm):
    """Softmax on one interest an example, which alone receives gradient.

    hard: the one that scores the target best (Re4 Eq. 13).
    bam-p: drawn from softmax_k(T z_k . e); bam-l: from softmax_k(T (l1 z_k) . (l2 e)), with l1, l2
    to 16 dimensions. No gradient passes a draw, so l1, l2 stay as they were drawn, as in the
    authors' code. bam-l-trained: the expected loss under those probabilities, which trains them.
    """

    def __init__(self, selection: Selection = "hard", inverse: float = 1.0, dim: int = 64) -> None:
        super().__init__()
        self._selection: Selection = selection
        self._inverse = inverse
        if selection in ("bam-l", "bam-l-trained"):
            self.of_interest = nn.Linear(dim, 16, bias=False)
            self.of_target = nn.Linear(dim, 16, bias=False)

    def forward(self, batch: Forward) -> Tensor:
        if self._selection == "bam-l-trained":
            return self._expected(batch)
        chosen = take(batch.interests.vectors, self._choose(batch))
        return softmax_loss(
            batch,
            (chosen * batch.target_vectors).sum(dim=1),
            chosen @ batch.negative_vectors.T,
        )

    def _choose(self, batch: Forward) -> Tensor:
        with torch.no_grad():
            if self._selection == "hard":
                return target_scores(batch).argmax(dim=1)
            logits = target_scores(batch) if self._selection == "bam-p" else self._learnt(batch)
            return torch.multinomial((self._inverse * logits).softmax(dim=1), 1).squeeze(1)

    def _learnt(self, batch: Forward) -> Tensor:
        of_interest = self.of_interest(batch.interests.vectors)
        result: Tensor = (of_interest @ self.of_target(batch.target_vectors)[:, :, None]).squeeze(2)
        return result

    def _expected(self, batch: Forward) -> Tensor:
        share = (self._inverse * self._learnt(batch)).softmax(dim=1)
        interests = batch.interests.vectors
        losses = [_each(batch, interests[:, k], share[:, k]) for k in range(interests.shape[1])]
        return torch.stack(losses).sum()


def _each(batch: Forward, interest: Tensor, share: Tensor) -> Tensor:
    """Mean over the batch of share (B,) times the loss of one interest (B, D)."""
    target, negative = corrected(
        batch, (interest * batch.target_vectors).sum(dim=1), interest @ batch.negative_vectors.T
    )
    loss = torch.logaddexp(target, negative.logsumexp(dim=1)) - target
    return (share * loss).mean()


_AT_ONCE = 32  # users, whose scores of all interests then stay in the processor's cache


class _ServedScores(torch.autograd.Function):
    """max_k z_k . e without ever holding the scores of all interests, K times as many."""

    @staticmethod
    def forward(ctx: FunctionCtx, interests: Tensor, items: Tensor) -> Tensor:
        best = interests.new_empty(len(interests), len(items))
        winners = torch.empty_like(best, dtype=torch.int64)
        for users in _slices(len(interests)):
            scores = interests[users].flatten(0, 1) @ items.T
            scores = scores.view(-1, interests.shape[1], len(items))
            torch.max(scores, dim=1, out=(best[users], winners[users]))
        ctx.save_for_backward(interests, items, winners)
        return best

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        interests, items, winners = ctx.saved_tensors
        (of_best,) = gradients
        of_interests, of_items = torch.empty_like(interests), torch.zeros_like(items)
        for users in _slices(len(interests)):
            vectors = interests[users]
            of_scores = vectors.new_zeros(*vectors.shape[:2], len(items))
            of_scores.scatter_(1, winners[users][:, None], of_best[users][:, None])
            flat = of_scores.flatten(0, 1)
            of_interests[users] = (flat @ items).view_as(vectors)
            of_items.addmm_(flat.T, vectors.flatten(0, 1))
        return of_interests, of_items


def _slices(users: int) -> Iterator[slice]:
    return (slice(first, first + _AT_ONCE) for first in range(0, users, _AT_ONCE))


def served_scores(interests: Tensor, items: Tensor) -> Tensor:
    """max_k z_k . e of interests (B, K, D) and items (S, D): (B, S)."""
    result: Tensor = _ServedScores.apply(interests, items)  # type: ignore[no-untyped-call]
    return result


class ServedMax(LossTerm):
    """Softmax on the score that is served: target and negatives by their best interest (Eq. 17).

    In no paper. The hard read-out punishes only the interest that the target chose; whatever the
    other interests mistake for good goes unpunished, and is served.
    """

    def forward(self, batch: Forward) -> Tensor:
        best = served_scores(batch.interests.vectors, batch.negative_vectors)
        return softmax_loss(batch, target_scores(batch).max(dim=1).values, best)


class MultiLoss(LossTerm):
    """BaM's multi_loss: softmax on logsumexp_k(z_k . E_i), a soft relative of ServedMax."""

    def forward(self, batch: Forward) -> Tensor:
        interests = batch.interests.vectors
        scores = interests.flatten(0, 1) @ batch.negative_vectors.T
        soft = scores.view(*interests.shape[:2], -1).logsumexp(dim=1)
        return softmax_loss(batch, target_scores(batch).logsumexp(dim=1), soft)

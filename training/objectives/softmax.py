"""The main loss: tell the next item from negatives by (sampled) softmax."""

import torch
from torch import Tensor

from training.objectives import Forward, Term


def softmax_loss(target_logits: Tensor, negative_logits: Tensor, accidental: Tensor) -> Tensor:
    """Mean of -log softmax of the target among itself and its negatives.

    target_logits (B,), negative_logits (B, S); accidental (B, S) true where the negative is the
    target itself and is left out.
    """
    negative_logits = negative_logits.masked_fill(accidental, -torch.inf)
    total = torch.logaddexp(target_logits, negative_logits.logsumexp(dim=1))
    return (total - target_logits).mean()


def hard_readout(interests: Tensor, target_vectors: Tensor) -> Tensor:
    """Of each example's interests (B, K, D) the one (B, D) that scores its target best (Eq. 13)."""
    best = (interests @ target_vectors[:, :, None]).squeeze(2).argmax(dim=1)
    return interests[torch.arange(len(interests), device=interests.device), best]


class HardSoftmax(Term):
    """Re4 Eq. 13-15: softmax on the one interest the target chooses; only it receives gradient."""

    def forward(self, batch: Forward) -> Tensor:
        chosen = hard_readout(batch.interests.vectors, batch.target_vectors)
        return softmax_loss(
            target_logits=(chosen * batch.target_vectors).sum(dim=1),
            negative_logits=chosen @ batch.negative_vectors.T,
            accidental=batch.targets[:, None] == batch.negatives,
        )

"""The main losses by (sampled) softmax: distinguish the next item from negatives.

Terms differ in the interest, or interests, that an item is scored with. Shapes: B batch, K
interests, D dimension, S negatives.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from index.encoders.arguments import Dim
from training.models.objectives.interface import (
    LossArguments,
    LossInputs,
    LossTerm,
    weighted_mean,
)
from training.models.objectives.log_normalizer import log_normalizer
from training.models.objectives.registry import register_main
from training.models.objectives.served_scores import served_scores

_BAM_DIM = 16


def softmax_loss(batch: LossInputs, target_logits: Tensor, negative_logits: Tensor) -> Tensor:
    """Weighted mean of -log softmax of the target (B,) among itself and its negatives (B, S).

    Logits are corrected for how often a row is drawn (logQ), and a negative that is the target
    itself is left out.
    """
    if negative_logits.dtype == torch.bfloat16:  # too coarse for sums of many
        target_logits, negative_logits = target_logits.float(), negative_logits.float()
    if batch.all_positions:  # whose examples are many; other fits keep the digits they had
        target_logits, negative_logits = _without_log_q(batch, target_logits, negative_logits)
        others = log_normalizer(negative_logits, batch.targets, batch.negatives)
    else:
        target_logits, negative_logits = corrected_logits(batch, target_logits, negative_logits)
        others = negative_logits.logsumexp(dim=1)
    return weighted_mean(torch.logaddexp(target_logits, others) - target_logits, batch.weights)


def corrected_logits(
    batch: LossInputs, target_logits: Tensor, negative_logits: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits minus logQ, and -inf for a negative that is the target itself."""
    target_logits, negative_logits = _without_log_q(batch, target_logits, negative_logits)
    accidental_hits = batch.targets[:, None] == batch.negatives
    return target_logits, negative_logits.masked_fill(accidental_hits, -torch.inf)


def _without_log_q(
    batch: LossInputs, target_logits: Tensor, negative_logits: Tensor
) -> tuple[Tensor, Tensor]:
    if batch.negative_log_q is None or batch.target_log_q is None:
        return target_logits, negative_logits
    return target_logits - batch.target_log_q, negative_logits - batch.negative_log_q


def gather_interests(interests: Tensor, selected: Tensor) -> Tensor:
    """interests (B, K, D), selected (B,) -> (B, D)."""
    return interests[torch.arange(len(interests), device=interests.device), selected]


def target_scores(batch: LossInputs) -> Tensor:
    """(B, K): z_k . e."""
    return (batch.interests.vectors @ batch.target_vectors[:, :, None]).squeeze(2)


@register_main("softmax", "on one interest")
class HardReadoutSoftmax(LossTerm):
    """Softmax on one interest per example; only this interest receives gradient.

    hard: the one that scores the target best (Re4 Eq. 13).
    bam-p: drawn from softmax_k(T z_k . e); bam-l: from softmax_k(T (l1 z_k) . (l2 e)), with l1, l2
    to 16 dimensions. No gradient passes a draw, so l1, l2 keep their initial values, as in the
    authors' code. bam-l-trained: the expected loss under those probabilities, which trains them.
    """

    class Arguments(LossArguments):
        interest_selection: Literal["hard", "bam-p", "bam-l", "bam-l-trained"] = Field(
            "hard", description="softmax: how the interest that the target trains is selected"
        )
        selection_inverse_temperature: float = Field(
            1.0, gt=0, description="softmax: inverse temperature T of BaM's selection"
        )
        dim: Dim

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        self._selection = arguments.interest_selection
        self._inverse_temperature = arguments.selection_inverse_temperature
        if self._selection in ("bam-l", "bam-l-trained"):
            self.interest_projection = nn.Linear(arguments.dim, _BAM_DIM, bias=False)
            self.target_projection = nn.Linear(arguments.dim, _BAM_DIM, bias=False)

    def forward(self, batch: LossInputs) -> Tensor:
        if self._selection == "bam-l-trained":
            return self._expected_loss(batch)
        selected = gather_interests(batch.interests.vectors, self._select(batch))
        return softmax_loss(
            batch,
            (selected * batch.target_vectors).sum(dim=1),
            selected @ batch.negative_vectors.T,
        )

    def _select(self, batch: LossInputs) -> Tensor:
        """(B,): the interest of each example."""
        with torch.no_grad():
            if self._selection == "hard":
                return target_scores(batch).argmax(dim=1)
            plain = self._selection == "bam-p"
            logits = target_scores(batch) if plain else self._learned_logits(batch)
            share = (self._inverse_temperature * logits).softmax(dim=1)
            return torch.multinomial(share, 1).squeeze(1)

    def _learned_logits(self, batch: LossInputs) -> Tensor:
        """(B, K): (l1 z_k) . (l2 e)."""
        interests = self.interest_projection(batch.interests.vectors)
        targets = self.target_projection(batch.target_vectors)
        result: Tensor = (interests @ targets[:, :, None]).squeeze(2)
        return result

    def _expected_loss(self, batch: LossInputs) -> Tensor:
        share = (self._inverse_temperature * self._learned_logits(batch)).softmax(dim=1)
        vectors = batch.interests.vectors
        losses = [_shared_loss(batch, vectors[:, k], share[:, k]) for k in range(vectors.shape[1])]
        return torch.stack(losses).sum()


def _shared_loss(batch: LossInputs, interest: Tensor, share: Tensor) -> Tensor:
    """Weighted mean over the batch of share (B,) times the loss of one interest (B, D)."""
    target, negative = corrected_logits(
        batch, (interest * batch.target_vectors).sum(dim=1), interest @ batch.negative_vectors.T
    )
    loss = torch.logaddexp(target, negative.logsumexp(dim=1)) - target
    return weighted_mean(share * loss, batch.weights)


@register_main("served-max", "on the served maximum")
class ServedMax(LossTerm):
    """Softmax on the served score: target and negatives by their best interest (Eq. 17).

    Published in no paper. The hard readout penalizes only the interest that the target selects; a
    negative that another interest scores high costs nothing, and is served.
    """

    def forward(self, batch: LossInputs) -> Tensor:
        vectors = batch.interests.vectors
        if batch.all_positions and vectors.shape[1] == 1:  # as below, in fewer operations
            best = vectors[:, 0] @ batch.negative_vectors.T
        else:
            best = served_scores(vectors, batch.negative_vectors)
        return softmax_loss(batch, target_scores(batch).max(dim=1).values, best)

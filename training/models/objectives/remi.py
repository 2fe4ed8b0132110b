"""REMI's two losses: harder negatives, and attention that does not collapse to single items.

Xie et al., REMI, RecSys 2023.
"""

import torch
from pydantic import Field
from torch import Tensor

from training.models.objectives.interface import (
    LossArguments,
    LossInputs,
    LossTerm,
    weighted_mean,
)
from training.models.objectives.registry import register_auxiliary, register_main
from training.models.objectives.softmax import corrected_logits, gather_interests, target_scores


@register_main("hard-negatives", "REMI's")
class HardNegatives(LossTerm):
    """IHN: -s+ + log(e^{s+} + n * sum_j softmax_j(beta s_j) e^{s_j}) on the hard readout.

    n negatives s_j. beta 0 is the plain sampled softmax. Weights are not detached, as in the
    authors' code. A negative that is the target is left out: with a large beta it would get all the
    weight.
    """

    class Arguments(LossArguments):
        ihn_beta: float = Field(
            1.0, ge=0, description="hard-negatives: beta of REMI's IHN; 0 is the plain softmax"
        )

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        self._beta = arguments.ihn_beta

    def forward(self, batch: LossInputs) -> Tensor:
        selected = gather_interests(batch.interests.vectors, target_scores(batch).argmax(dim=1))
        target, negative = corrected_logits(
            batch, (selected * batch.target_vectors).sum(dim=1), selected @ batch.negative_vectors.T
        )
        count = torch.isfinite(negative).sum(dim=1).to(negative.dtype)
        scaled = (self._beta * negative.masked_fill(negative == -torch.inf, 0)).masked_fill(
            negative == -torch.inf, -torch.inf
        )
        # log(n * sum_j e^{beta s_j} e^{s_j} / sum_j e^{beta s_j}), without overflow
        weighted = (scaled + negative).logsumexp(dim=1) - scaled.logsumexp(dim=1) + count.log()
        return weighted_mean(torch.logaddexp(target, weighted) - target, batch.weights)


@register_auxiliary(
    "routing_reg_weight", "coefficient of REMI's routing regularization; 0 turns it off"
)
class RoutingRegularizer(LossTerm):
    """RR: C = (A - mean)(A - mean)^T / D over the positions of a history, loss sum_k C_kk^2.

    A (K, L) is the attention; its mean is over L, padding included. Mean over the batch: the
    authors' sum over a batch of 128 with coefficient 100 is 12,800 here.
    """

    reads_history = True

    def forward(self, batch: LossInputs) -> Tensor:
        attention = batch.interests.attention
        centred = attention - attention.mean(dim=2, keepdim=True)
        variance = centred.square().sum(dim=2) / batch.history.vectors.shape[2]
        return variance.square().sum(dim=1).mean()

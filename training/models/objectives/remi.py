"""REMI's two terms: harder negatives, and attention that does not collapse to single items.

Xie et al., REMI, RecSys 2023.
"""

import torch
from torch import Tensor

from training.models.objectives import Forward, LossTerm
from training.models.objectives.softmax import corrected, take, target_scores


class HardNegatives(LossTerm):
    """IHN: -s+ + log(e^{s+} + n * sum_j softmax_j(beta s_j) e^{s_j}) on the hard read-out.

    n negatives s_j. beta 0 is the plain sampled softmax. Weights are not detached, as in the
    authors' code; a negative that is the target is left out, or with a large beta it would be all.
    """

    def __init__(self, beta: float) -> None:
        super().__init__()
        self._beta = beta

    def forward(self, batch: Forward) -> Tensor:
        chosen = take(batch.interests.vectors, target_scores(batch).argmax(dim=1))
        target, negative = corrected(
            batch, (chosen * batch.target_vectors).sum(dim=1), chosen @ batch.negative_vectors.T
        )
        count = torch.isfinite(negative).sum(dim=1).to(negative.dtype)
        scaled = (self._beta * negative.masked_fill(negative == -torch.inf, 0)).masked_fill(
            negative == -torch.inf, -torch.inf
        )
        # log(n * sum_j e^{beta s_j} e^{s_j} / sum_j e^{beta s_j}), without overflow
        weighted = (scaled + negative).logsumexp(dim=1) - scaled.logsumexp(dim=1) + count.log()
        return (torch.logaddexp(target, weighted) - target).mean()


class RoutingRegularizer(LossTerm):
    """RR: C = (A - mean)(A - mean)^T / D over the places of a history, loss sum_k C_kk^2.

    A (K, L) is the attention; its mean is over L, padding included. Mean over the batch: the
    authors' sum over a batch of 128 with coefficient 100 is 12,800 here.
    """

    def forward(self, batch: Forward) -> Tensor:
        attention = batch.interests.attention
        centred = attention - attention.mean(dim=2, keepdim=True)
        variance = centred.square().sum(dim=2) / batch.history.vectors.shape[2]
        return variance.square().sum(dim=1).mean()

"""TiMiRec's two stages: learn the interests, then learn which of them comes next.

Wang et al., CIKM 2022. Shapes: B batch, K interests, S negatives.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from training.models.objectives import Forward, LossTerm
from training.models.objectives.softmax import take


def ranking_loss(batch: Forward, vectors: Tensor) -> Tensor:
    """BPR: mean of -log sigmoid(u . e - u . E_j) over the batch and its negatives; u (B, D)."""
    target = (vectors * batch.target_vectors).sum(dim=1, keepdim=True)
    negative = vectors @ batch.negative_vectors.T
    losses = F.softplus(negative - target)
    accidental = batch.targets[:, None] == batch.negatives
    kept = (~accidental).sum().clamp_min(1)
    return losses.masked_fill(accidental, 0).sum() / kept


class TargetInterest(LossTerm):
    """Stage 1, for `pretrain` epochs: ranking loss on the interest nearest the target.

    Stage 2, from then on: ranking loss on the mixture u, and distillation, temperature^2 *
    KL(softmax(c / temperature) || softmax(p / temperature)), of the target's affinities
    c_k = cos(z_k, e), which get no gradient, into the prediction p.
    """

    def __init__(self, temperature: float, pretrain: int) -> None:
        super().__init__()
        self._temperature, self._pretrain = temperature, pretrain
        self._epoch = 0

    def start_epoch(self, number: int) -> None:
        self._epoch = number

    def forward(self, batch: Forward) -> Tensor:
        interests, prediction = batch.interests.raw, batch.interests.prediction
        if prediction is None:
            raise ValueError("target interest: the encoder predicts none; use encoder timirec")
        if self._epoch < self._pretrain:
            with torch.no_grad():
                nearest = (interests @ batch.target_vectors[:, :, None]).squeeze(2).argmax(dim=1)
            return ranking_loss(batch, take(interests, nearest))
        mixed = batch.interests.vectors.squeeze(1)
        return ranking_loss(batch, mixed) + self._distil(batch, interests, prediction)

    def _distil(self, batch: Forward, interests: Tensor, prediction: Tensor) -> Tensor:
        with torch.no_grad():
            affinity = F.cosine_similarity(interests, batch.target_vectors[:, None, :], dim=2)
            teacher = (affinity / self._temperature).softmax(dim=1)
        student = (prediction / self._temperature).log_softmax(dim=1)
        return self._temperature**2 * F.kl_div(student, teacher, reduction="batchmean")

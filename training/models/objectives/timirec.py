"""TiMiRec's two stages: learn the interests, then learn which of them comes next.

Wang et al., CIKM 2022. Shapes: B batch, K interests, D dimension, S negatives.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from training.models.objectives.interface import (
    LossArguments,
    LossInputs,
    LossTerm,
    weighted_mean,
)
from training.models.objectives.registry import register_main
from training.models.objectives.softmax import gather_interests

PretrainEpochs = Annotated[
    int,
    Field(
        0,
        ge=0,
        description="target-interest: epochs of stage 1, from which no weights are selected",
    ),
]


def ranking_loss(batch: LossInputs, vectors: Tensor) -> Tensor:
    """BPR: mean of -log sigmoid(u . e - u . E_j) over the batch and its negatives; u (B, D).

    Each pair has the weight of its target.
    """
    target = (vectors * batch.target_vectors).sum(dim=1, keepdim=True)
    negative = vectors @ batch.negative_vectors.T
    losses = F.softplus(negative - target)
    accidental_hits = batch.targets[:, None] == batch.negatives
    losses, counts = losses.masked_fill(accidental_hits, 0), (~accidental_hits).sum(dim=1)
    if batch.weights is None:
        return losses.sum() / counts.sum().clamp_min(1)
    total = (counts * batch.weights).sum()  # 0 if every negative is the target
    return (losses * batch.weights[:, None]).sum() / total.where(total > 0, 1)


@register_main("target-interest", "TiMiRec's")
class TargetInterest(LossTerm):
    """Stage 1, for `pretrain_epochs` epochs: ranking loss on the interest nearest the target.

    Stage 2, from then on: ranking loss on the mixture u, and distillation, temperature^2 *
    KL(softmax(c / temperature) || softmax(p / temperature)), of the target's affinities
    c_k = cos(z_k, e), which get no gradient, into the prediction p.
    """

    class Arguments(LossArguments):
        pretrain_epochs: PretrainEpochs
        distillation_temperature: float = Field(
            0.1, gt=0, description="target-interest: temperature of the distillation"
        )

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        self._temperature = arguments.distillation_temperature
        self._pretrain_epochs = arguments.pretrain_epochs
        self._epoch = 0

    def start_epoch(self, number: int) -> None:
        self._epoch = number

    def forward(self, batch: LossInputs) -> Tensor:
        interests, prediction = batch.interests.raw, batch.interests.prediction
        if prediction is None:
            raise ValueError("target interest: the encoder predicts none; use encoder timirec")
        if self._epoch < self._pretrain_epochs:
            with torch.no_grad():
                nearest = (interests @ batch.target_vectors[:, :, None]).squeeze(2).argmax(dim=1)
            return ranking_loss(batch, gather_interests(interests, nearest))
        mixed = batch.interests.vectors.squeeze(1)
        return ranking_loss(batch, mixed) + self._distillation_loss(batch, interests, prediction)

    def _distillation_loss(
        self, batch: LossInputs, interests: Tensor, prediction: Tensor
    ) -> Tensor:
        with torch.no_grad():
            affinity = F.cosine_similarity(interests, batch.target_vectors[:, None, :], dim=2)
            teacher = (affinity / self._temperature).softmax(dim=1)
        student = (prediction / self._temperature).log_softmax(dim=1)
        divergence = F.kl_div(student, teacher, reduction="none")
        return self._temperature**2 * weighted_mean(divergence, batch.weights)

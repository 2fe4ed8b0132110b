"""BaM's auxiliary loss."""

from torch import Tensor

from training.models.objectives.interface import LossInputs, LossTerm
from training.models.objectives.registry import register_auxiliary
from training.models.objectives.softmax import softmax_loss, target_scores


@register_auxiliary("multi_loss", "coefficient of BaM's multi_loss; 0 turns it off")
class MultiLoss(LossTerm):
    """BaM's multi_loss: softmax on logsumexp_k(z_k . E_i), a soft relative of ServedMax."""

    def forward(self, batch: LossInputs) -> Tensor:
        interests = batch.interests.vectors
        scores = interests.flatten(0, 1) @ batch.negative_vectors.T
        soft = scores.view(*interests.shape[:2], -1).logsumexp(dim=1)
        return softmax_loss(batch, target_scores(batch).logsumexp(dim=1), soft)

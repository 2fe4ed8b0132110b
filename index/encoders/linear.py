"""The linear encoder: a weighted sum of the history's vectors, through one matrix."""

import torch
from pydantic import Field
from torch import Tensor, nn

from index.encoders.arguments import EncoderArguments, HistoryLength
from index.encoders.interface import Encoder, History, Interests
from index.encoders.registry import register


@register("linear")
class LinearEncoder(Encoder):
    """z = A sum_i decay^age(i) e_i, where the newest item has age 0.

    A low-rank linear autoencoder of histories. Its weights and item vectors are computed in closed
    form (training.models.closed_form). `attention` is the share of each item's decay in the sum.
    """

    class Arguments(EncoderArguments):
        history: HistoryLength
        history_decay: float = Field(
            1.0, gt=0, le=1, description="linear: weight of an item over that of the next newer one"
        )

    interests = 1

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        self.dim, self._decay = arguments.dim, arguments.history_decay
        self.matrix = nn.Linear(arguments.dim, arguments.dim, bias=False)

    def forward(self, history: History) -> Interests:
        weights = self.weights(history.mask)
        vectors = self.matrix(weights[:, None] @ history.vectors)
        attention = (weights / weights.sum(dim=1, keepdim=True))[:, None]
        return Interests(vectors, attention, vectors)

    def weights(self, mask: Tensor) -> Tensor:
        """(B, L): decay^age at items, 0 at padding; mask (B, L)."""
        ages = torch.arange(mask.shape[1] - 1, -1, -1, device=mask.device)
        return mask * torch.pow(torch.tensor(self._decay), ages)

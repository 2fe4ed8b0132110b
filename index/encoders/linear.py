"""The linear encoder: weighted sums of the history's vectors, through one matrix."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from index.encoders.arguments import EncoderArguments, HistoryLength, InterestCount
from index.encoders.interface import Encoder, History, Interests, ServedHistory, ServedInterests
from index.encoders.registry import register
from index.encoders.served_layers import serve_linear


@register("linear")
class LinearEncoder(Encoder):
    """z_k = A ((1 - s) sum_i w_i e_i + s sum_{i in cluster k} w_i e_i), w_i = decay^age(i).

    The newest item has age 0; s is `own_share`. The cluster of an item is the nearest, by cosine,
    of K centres. K = 1: z = A sum_i w_i e_i. A low-rank linear autoencoder of histories, whose
    weights and item vectors are computed in closed form (training.models.closed_form); clusters of
    a history as interests are PinnerSage's (Pal et al., KDD 2020). An interest whose cluster the
    history lacks is that of the whole. `attention` is the share of each item's weight in z_k.
    """

    class Arguments(EncoderArguments):
        interests: InterestCount = 1
        history: HistoryLength
        history_decay: float = Field(
            1.0, gt=0, le=1, description="linear: weight of an item over that of the next newer one"
        )
        own_share: float = Field(
            0.6,
            ge=0,
            le=1,
            description="linear: how much an interest of K > 1 is of its own items, not of all; "
            "more makes the lists differ more",
        )

    closed_form = True
    centers: Tensor  # (K, D)

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        self.dim, self.interests = arguments.dim, arguments.interests
        self._decay, self._own_share = arguments.history_decay, arguments.own_share
        self.matrix = nn.Linear(arguments.dim, arguments.dim, bias=False)
        self.register_buffer("centers", torch.randn(self.interests, self.dim))

    def forward(self, history: History) -> Interests:
        weights = self._weights(history)
        vectors = self.matrix(weights @ history.vectors)
        return Interests(vectors, weights / weights.sum(dim=2, keepdim=True), vectors)

    def _weights(self, history: History) -> Tensor:
        """(B, K, L): of each item in each interest, 0 at padding."""
        mask = history.mask
        ages = torch.arange(mask.shape[1] - 1, -1, -1, device=mask.device)
        decayed = mask * torch.pow(torch.tensor(self._decay, device=mask.device), ages)
        if self.interests == 1:
            return decayed[:, None]
        is_own = F.one_hot(self.clusters(history.vectors), self.interests).transpose(1, 2)
        own = decayed[:, None] * is_own  # (B, K, L)
        is_there = own.sum(dim=2, keepdim=True) > 0
        share = self._own_share * is_there
        return (1 - share) * decayed[:, None] + share * own

    def clusters(self, vectors: Tensor) -> Tensor:
        """(...,) 0..K - 1, of item vectors (..., D)."""
        return (vectors @ self.centers.T).argmax(dim=-1)

    def serve(self, history: ServedHistory) -> ServedInterests:
        weights = self._served_weights(history)
        vectors = serve_linear(self.matrix, weights @ history.vectors)
        return ServedInterests(vectors, weights / weights.sum(axis=2, keepdims=True), vectors)

    def _served_weights(self, history: ServedHistory) -> NDArray[np.float32]:
        """As _weights, in numpy."""
        ages = np.arange(history.mask.shape[1] - 1, -1, -1)
        decayed = (history.mask * np.power(np.float32(self._decay), ages))[:, None]
        if self.interests == 1:
            return np.asarray(decayed, np.float32)
        clusters = (history.vectors @ self.centers.numpy().T).argmax(axis=2)
        own = decayed * (clusters[:, None] == np.arange(self.interests)[:, None])
        share = self._own_share * (own.sum(axis=2, keepdims=True) > 0)
        weights: NDArray[np.float32] = ((1 - share) * decayed + share * own).astype(np.float32)
        return weights

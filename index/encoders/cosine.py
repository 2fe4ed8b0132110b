"""Cosine scores for any encoder: interests of one length, searched in items of length 1."""

import torch.nn.functional as F
from torch import Tensor

from index.encoders.interface import Encoder, History, Interests


class CosineEncoder(Encoder):
    """An encoder whose interests are scaled to the length 1 / temperature.

    Their inner product with items of length 1 is the cosine divided by the temperature, so the
    length of an item vector, which mostly encodes its popularity, has no effect.
    """

    def __init__(self, encoder: Encoder, temperature: float) -> None:
        super().__init__()
        self.interests, self.dim = encoder.interests, encoder.dim
        self.encoder = encoder
        self.temperature = temperature

    def forward(self, history: History) -> Interests:
        return self._scale(self.encoder(history))

    def prefix_interests(self, history: History, ends: Tensor) -> Interests:
        return self._scale(self.encoder.prefix_interests(history, ends))

    def _scale(self, interests: Interests) -> Interests:
        return interests._replace(vectors=F.normalize(interests.vectors, dim=-1) / self.temperature)

"""Scores that are cosines: interests of one length, for items of length 1."""

import torch.nn.functional as F

from index.encoders.interface import Encoder, History, Interests


class Cosine(Encoder):
    """An encoder whose interests are brought to the length 1 / temperature.

    By inner product with items of length 1 they give the cosine over the temperature, so that an
    item's length, its popularity for the most part, counts for nothing.
    """

    def __init__(self, encoder: Encoder, temperature: float) -> None:
        super().__init__()
        self.interests, self.dim = encoder.interests, encoder.dim
        self.encoder = encoder
        self.temperature = temperature

    def forward(self, history: History) -> Interests:
        encoded = self.encoder(history)
        return encoded._replace(vectors=F.normalize(encoded.vectors, dim=-1) / self.temperature)

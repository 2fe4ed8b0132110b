"""Cosine scores for any encoder: interests of one length, searched in items of length 1."""

import numpy as np
import torch.nn.functional as F

from index.encoders.interface import Encoder, History, Interests, ServedHistory, ServedInterests

_MIN_LENGTH = 1e-12  # F.normalize's, in place of a length of 0


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
        encoded = self.encoder(history)
        return encoded._replace(vectors=F.normalize(encoded.vectors, dim=-1) / self.temperature)

    def serve(self, history: ServedHistory) -> ServedInterests:
        vectors, attention = self.encoder.serve(history)
        lengths = np.sqrt(np.vecdot(vectors, vectors))[:, :, None]
        scale = np.maximum(lengths, np.float32(_MIN_LENGTH)) * np.float32(self.temperature)
        return ServedInterests(vectors / scale, attention)

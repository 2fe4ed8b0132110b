"""Cosine scores for any encoder: interests of one length, searched in items of length 1."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from index.encoders.interface import Encoder, History, Interests, ServedHistory, ServedInterests

_MIN_LENGTH = 1e-12  # F.normalize's, in place of a length of 0


class CosineEncoder(Encoder):
    """An encoder whose interests are scaled to the length 1 / temperature.

    Their inner product with items of length 1 is the cosine divided by the temperature, so the
    length of an item vector, which mostly encodes its popularity, has no effect. learned: the
    temperature is a weight, and begins at the one given.
    """

    def __init__(self, encoder: Encoder, temperature: float, learned: bool = False) -> None:
        super().__init__()
        self.interests, self.dim = encoder.interests, encoder.dim
        self.reads_gaps = encoder.reads_gaps
        self.encoder = encoder
        self.temperature = temperature
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature))) if learned else None

    def forward(self, history: History) -> Interests:
        return self._scale(self.encoder(history))

    def prefix_interests(self, history: History, ends: Tensor) -> Interests:
        return self._scale(self.encoder.prefix_interests(history, ends))

    def _scale(self, interests: Interests) -> Interests:
        unit = F.normalize(interests.vectors, dim=-1)
        scaled = unit / self.temperature if self.log_scale is None else unit * self.log_scale.exp()
        return interests._replace(vectors=scaled)

    @property
    def uses_gpu(self) -> bool:
        return self.encoder.uses_gpu

    def serve(self, history: ServedHistory) -> ServedInterests:
        served = self.encoder.serve(history)
        vectors = served.vectors
        lengths = np.sqrt(np.vecdot(vectors, vectors))[:, :, None]
        learned = self.log_scale
        temperature = self.temperature if learned is None else math.exp(-learned.item())
        scale = np.maximum(lengths, np.float32(_MIN_LENGTH)) * np.float32(temperature)
        return served._replace(vectors=vectors / scale)

"""Samplers of negatives: rows that a whole batch shares."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

SamplerName = Literal["uniform", "full"]


class Negatives(NamedTuple):
    """rows (S,) int64 of 1..N, shared by the batch."""

    rows: Tensor


Sampler = Callable[[Tensor], Negatives]


def uniform(items: int, count: int) -> Sampler:
    """`count` rows of 1..items, each equally likely, drawn with replacement from torch's generator.

    Uniform probabilities shift every logit alike, so there is no correction (logQ) to make.
    """

    def draw(targets: Tensor) -> Negatives:
        return Negatives(torch.randint(1, items + 1, (count,), device=targets.device))

    return draw


def full(items: int) -> Sampler:
    """Every row: the exact softmax, cheaper than sampling while the catalogue is small."""

    def draw(targets: Tensor) -> Negatives:
        return Negatives(torch.arange(1, items + 1, device=targets.device))

    return draw


def build_sampler(name: SamplerName, items: int, count: int) -> Sampler:
    return full(items) if name == "full" else uniform(items, count)

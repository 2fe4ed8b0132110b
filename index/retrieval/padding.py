"""Padding of histories: the only module that knows their order, truncation and padding.

A history is newest last. It is truncated to its last `length` items and padded on the left: with
length 5, [a, b, c] becomes [0, 0, a, b, c]. The newest item is always in the last column.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.encoders.time_gaps import codes_of_ages


def pad_slices(values: Tensor, starts: Tensor, ends: Tensor, length: int) -> Tensor:
    """The histories values[start:end] of a flat tensor as (B, length) of its type, 0 = padding."""
    positions = ends[:, None] + torch.arange(-length, 0, device=ends.device)
    if not len(values):
        return values.new_zeros(positions.shape)
    taken = values[positions.clamp_min(0)]
    return taken.masked_fill_(positions < starts[:, None], 0)


def pad_histories(histories: Sequence[Sequence[int]], length: int) -> NDArray[np.int64]:
    """Histories of rows as (B, length), 0 = padding; unknown items, of row 0, are left out."""
    padded = np.zeros((len(histories), length), dtype=np.int64)
    for target, history in zip(padded, histories, strict=True):
        known = [row for row in history if row][-length:]
        if known:
            target[-len(known) :] = known
    return padded


def pad_gaps(ages: Sequence[Sequence[float] | None], length: int) -> NDArray[np.int64]:
    """The codes of the times in histories as (B, length), 0 = padding, or not known.

    ages: of each item of a history that has no unknown items; None where no time is known.
    """
    padded = np.zeros((len(ages), length), dtype=np.int64)
    for target, history in zip(padded, ages, strict=True):
        if history:
            codes = codes_of_ages(history[-length:])
            target[-len(codes) :] = codes
    return padded

"""Padding of histories: the only module that knows their order, truncation and padding.

A history is newest last. It is truncated to its last `length` items and padded on the left: with
length 5, [a, b, c] becomes [0, 0, a, b, c]. The newest item is always in the last column.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pad_slices(
    rows: NDArray[np.integer], starts: NDArray[np.integer], ends: NDArray[np.integer], length: int
) -> NDArray[np.int64]:
    """The histories rows[start:end] of a flat array as (B, length), 0 = padding."""
    positions = np.asarray(ends)[:, None] + np.arange(-length, 0)
    is_inside = positions >= np.asarray(starts)[:, None]
    padded = np.zeros(positions.shape, dtype=np.int64)
    padded[is_inside] = rows[positions[is_inside]]
    return padded


def pad_histories(histories: Sequence[Sequence[int]], length: int) -> NDArray[np.int64]:
    """Histories of rows as (B, length), 0 = padding; unknown items, of row 0, are left out."""
    padded = np.zeros((len(histories), length), dtype=np.int64)
    for target, history in zip(padded, histories, strict=True):
        known = [row for row in history if row][-length:]
        if known:
            target[-len(known) :] = known
    return padded

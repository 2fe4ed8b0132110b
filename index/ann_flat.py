"""Exact search: every item's score nearly, then exactly for the few that can be best."""

from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from index.merge import Hits, Line, stack
from index.rounding import RoundedMatrix, round_interests

BATCH = 32  # requests at a time, to bound the memory that their scores take


class FlatIndex:
    """Every item is compared with every interest. Any number of threads may search."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        """vectors (N + 1, D), row 0 padding; may be memory-mapped."""
        self._vectors = np.asarray(vectors)
        self._items = RoundedMatrix(self._vectors[1:])

    def search(self, interests: NDArray[np.float32], k: int) -> Hits:
        lines: list[Line] = []
        for first in range(0, len(interests), BATCH):
            batch = interests[first : first + BATCH]
            rounded = round_interests(batch)
            maxima, errors = self._items.maxima(rounded), self._items.errors(rounded)
            for request, best, error in zip(batch, maxima, errors, strict=True):
                places, _ = leaders(best, error, k)
                lines.append(score(self._vectors, places + 1, request))
        return stack(lines)

    @property
    def faiss_index(self) -> faiss.Index:
        """What faiss searches to the same end; the row of an item is its place there + 1."""
        index = faiss.IndexFlatIP(self._vectors.shape[1])
        index.add(self._vectors[1:])
        return index

    def write(self, path: Path) -> None:
        faiss.write_index(self.faiss_index, str(path))


def leaders(scores: NDArray[np.float32], error: float, k: int) -> tuple[NDArray[np.int64], float]:
    """Places of scores (M,), each off by `error` at most: all that can be of the k best.

    And the k-th best of the scores as they are; minus infinity where there are no more than k.
    """
    if k >= len(scores):
        return np.arange(len(scores)), -np.inf
    bar = float(np.partition(scores, -k)[-k])
    # The k that look best are truly bar - error or better. So is the true k-th best, which looks
    # like bar - 2 error at worst.
    return np.flatnonzero(scores >= bar - 2 * error), bar


def score(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], interests: NDArray[np.float32]
) -> Line:
    """Rows, each with its best inner product with the interests (K, D), and which of them it is."""
    products = interests @ vectors.take(rows, axis=0).T
    return rows, products.max(axis=0), products.argmax(axis=0)

"""A map of a release: the directions of its item vectors, on their two principal components."""

import numpy as np
from numpy.typing import NDArray

from index.retrieval.retriever import Retriever

_FITTED_ON = 20_000  # items, evenly spread over the catalogue's popularity
_MIN_NORM = 1e-12


class Projection:
    """Where items and interests of one release lie; both are scaled to length 1 first.

    explained: the share of the variance of the items' directions along each of the two axes. A
    plane shows little of many dimensions: what is close here need not be close in them.
    """

    def __init__(self, retriever: Retriever) -> None:
        self._content = retriever.encoder.content
        rows = np.unique(np.linspace(1, len(retriever.catalog), _FITTED_ON).astype(np.int64))
        directions = self._directions(retriever.vectors[rows])
        self._mean = directions.mean(axis=0)
        centered = directions - self._mean
        variances, axes = np.linalg.eigh(centered.T @ centered / len(centered))
        self._axes = _oriented(axes[:, ::-1][:, :2])
        total = max(float(variances.sum()), _MIN_NORM)
        self.explained: list[float] = [max(float(v), 0.0) / total for v in variances[::-1][:2]]

    def __call__(self, vectors: NDArray[np.float32]) -> list[list[float]]:
        """n pairs of coordinates of vectors (n, D), within -2..2."""
        points = (self._directions(vectors) - self._mean) @ self._axes
        rounded: list[list[float]] = np.round(points, 4).tolist()
        return rounded

    def _directions(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        content = np.asarray(vectors, np.float64)[:, : self._content]
        norms = np.linalg.norm(content, axis=1, keepdims=True)
        directions: NDArray[np.float64] = content / np.maximum(norms, _MIN_NORM)
        return directions


def _oriented(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same axes (D, 2), each with its largest component positive: a map is never mirrored."""
    if axes.shape[1] < 2:  # of one dimension
        return np.column_stack([np.ones(1), np.zeros(1)])
    largest: NDArray[np.float64] = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    oriented: NDArray[np.float64] = axes * np.where(largest < 0, -1.0, 1.0)
    return oriented

"""Baselines that know items by who took them together, and so serve users never seen.

A score is a sum over the items of the history: of EASE's weights, or of similarities to neighbours.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.data.packed_log import PackedLog
from training.evaluation.rankings import Scorer
from training.models.item_weights import ease_weights, interaction_matrix

_BLOCK = 1024  # items whose neighbours are found at once


def ease(log: PackedLog, items: int, l2: float, max_items: int) -> Scorer:
    """EASE: the scores of a history x, of ones, are x B (see ease_weights).

    Only the first max_items rows, the most popular, are in B. The scores of others are -inf, and
    they count for nothing in a history. Raises ArithmeticError if l2 is too small for float32.
    """
    size = min(items, max_items)
    weights = ease_weights(interaction_matrix(log, size), l2).weights

    def score(histories: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        known = [[row for row in {*history} if row <= size] for history in histories]
        shown = _weighted(known, [np.ones(len(rows)) for rows in known], size)
        scores = np.full((len(histories), items), -np.inf, dtype=np.float32)
        scores[:, :size] = shown @ weights
        return scores

    return score


def item_knn(log: PackedLog, items: int, neighbours: int, shrinkage: float, decay: float) -> Scorer:
    """Item-based k nearest neighbours (Sarwar et al., WWW 2001), newer items of a history first.

    The similarity of i and j is c_ij / sqrt((c_i + shrinkage) (c_j + shrinkage)), the cosine if
    shrinkage is 0; c counts users. An item adds its similarity to its `neighbours` most similar
    items, times decay ** age, where the newest item of the history has age 0.
    """
    similar = _neighbours(interaction_matrix(log, items), neighbours, shrinkage)

    def score(histories: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        ages = [np.arange(len(history))[::-1] for history in histories]
        shown = _weighted(histories, [np.power(decay, age) for age in ages], items)
        scores: NDArray[np.float32] = (shown @ similar).toarray()
        return scores

    return score


def _neighbours(taken: sparse.csr_array, count: int, shrinkage: float) -> sparse.csr_array:
    """(items, items): of each row the `count` greatest similarities; none to itself."""
    scale = 1 / np.sqrt(np.maximum(taken.sum(axis=0) + shrinkage, 1e-12))
    scaled = sparse.csr_array(taken * scale[None, :].astype(np.float32))
    by_item = sparse.csr_array(scaled.T)
    columns, values = [], []
    for start in range(0, scaled.shape[1], _BLOCK):
        block = sparse.csr_array(by_item[start : start + _BLOCK] @ scaled)
        for row, (first, end) in enumerate(pairwise(block.indptr)):
            others, similarities = block.indices[first:end], block.data[first:end]
            is_other = others != start + row
            best = _best(others[is_other], similarities[is_other], count)
            columns.append(best[0])
            values.append(best[1])
    offsets = np.cumsum([0, *map(len, columns)])
    parts = np.concatenate(values), np.concatenate(columns), offsets
    return sparse.csr_array(parts, shape=(scaled.shape[1], scaled.shape[1]))


def _best(
    columns: NDArray[np.integer], values: NDArray[np.float32], count: int
) -> tuple[NDArray[np.integer], NDArray[np.float32]]:
    """The `count` greatest values and their columns; of equal values the first columns."""
    if len(values) > count:
        least = np.partition(values, -count)[-count]
        columns, values = columns[values >= least], values[values >= least]
    order = np.lexsort((columns, -values))[:count]
    return columns[order], values[order]


def _weighted(
    histories: Sequence[Sequence[int]], weights: Sequence[NDArray[np.float64]], items: int
) -> sparse.csr_array:
    """(histories, items) float32: the summed weights of each history's items."""
    offsets = np.cumsum([0, *map(len, histories)])
    columns = np.concatenate([np.array(history, dtype=int) for history in histories]) - 1
    values = np.concatenate(weights).astype(np.float32)
    return sparse.csr_array((values, columns, offsets), shape=(len(histories), items))

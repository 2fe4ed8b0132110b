"""EASE: an item's weights for the other items of a history, in closed form."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack

from training.data.packed_log import PackedLog


class ItemWeights(NamedTuple):
    """weights (M, M): B of EASE; the score of item j is (x B)_j. inverse (M, M): P."""

    weights: NDArray[np.float32]
    inverse: NDArray[np.float32]


def interaction_matrix(log: PackedLog, items: int) -> sparse.csr_array:
    """(users, items) float32: 1 where a user took the item, however often; column = row - 1."""
    users = np.repeat(np.arange(len(log)), np.diff(log.offsets))
    known = log.rows <= items
    cells = users[known], log.rows[known] - 1
    ones = np.ones(len(cells[0]), np.float32)
    matrix = sparse.csr_array((ones, cells), shape=(len(log), items))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def ease_weights(taken: sparse.csr_array, l2: float) -> ItemWeights:
    """EASE (Steck, WWW 2019, Eq. 8): B = I - P diagMat(1 / diag(P)), P = (X^T X + l2 I)^-1.

    taken (users, M): X, of ones. The diagonal of B is 0. Takes 8 M^2 bytes.
    Raises ArithmeticError if l2 is too small for float32.
    """
    size = taken.shape[1]
    gram = (taken.T @ taken).toarray().T  # symmetric, and in LAPACK's order without a copy
    gram[np.diag_indices(size)] += l2
    lower, failed = lapack.spotrf(gram, lower=1, overwrite_a=1)
    if failed == 0:
        lower, failed = lapack.spotri(lower, lower=1, overwrite_c=1)
    if failed:
        raise ArithmeticError(f"l2 of {l2:g} leaves the items' matrix singular; give more")
    for item in range(size):
        lower[item, item + 1 :] = lower[item + 1 :, item]
    inverse = lower.T
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return ItemWeights(weights, inverse)

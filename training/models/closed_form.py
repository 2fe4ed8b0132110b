"""Weights that are computed, not learned: those of the linear encoder."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from index.encoders import ENCODERS
from index.encoders.linear import LinearEncoder
from training.data.packed_log import PackedLog
from training.models.clusters import cluster_centers
from training.models.item_weights import ease_weights, interaction_matrix
from training.models.model import Model
from training.models.options import ModelOptions

# Of a model whose scores are plain inner products.
CLOSED_FORM_SETTINGS = {
    "objective": "served-max",
    "positions": "last",
    "score_temperature": 0.0,
    "item_bias": False,
    "item_init": "random",
}

_OVERSAMPLING, _ITERATIONS = 32, 8  # of the subspace iteration
_RIDGE = 1e-4  # of the mean square of a coordinate


def has_closed_form(options: ModelOptions) -> bool:
    """Whether the weights are computed, so that there is nothing to train."""
    return options.encoder in ENCODERS and ENCODERS[options.encoder].closed_form


@torch.no_grad()
def solve(model: Model, options: ModelOptions, log: PackedLog) -> None:
    """Set the weights of a linear model over the training part of a log.

    B are EASE's weights among the `ease_items` most popular items. Of the users' scores X B, the
    first D right singular vectors are the item vectors V (reduced-rank regression; Izenman, 1975),
    and Z = X B V what interests should be. The vector of a rarer item is the least-squares solution
    of Z v = its ridge scores. A is that of X V A = Z, by which an interest needs no other table
    than the item vectors. K > 1 interests have the clusters of the items solved for.
    Raises ArithmeticError if ease_l2 is too small for float32.
    """
    taken = interaction_matrix(log, len(model.weight) - 1)
    solved = min(options.ease_items, taken.shape[1])
    head, rest = taken[:, :solved], taken[:, solved:]
    ease = ease_weights(head, options.ease_l2)
    dim = min(options.dim, solved, len(log))
    loadings = _right_singular_vectors(head, ease.weights, dim)
    scores = head @ (ease.weights @ loadings)  # Z (users, dim)
    vectors = np.zeros((taken.shape[1] + 1, options.dim), np.float32)
    vectors[1 : solved + 1, :dim] = loadings
    if rest.shape[1]:
        # X P X^T x_j are the ridge scores of item j, and v_j = (Z^T Z)^-1 Z^T (X P X^T x_j).
        users = head @ (ease.inverse @ (head.T @ scores))
        vectors[solved + 1 :, :dim] = _least_squares(scores, rest.T @ users)
    sums = taken @ vectors[1:, :dim]
    matrix = np.zeros((options.dim, options.dim), np.float32)
    matrix[:dim, :dim] = _least_squares(sums, scores.T @ sums)
    encoder = model.encoder
    assert isinstance(encoder, LinearEncoder), "other encoders are not linear; this is a bug"
    model.weight.copy_(torch.from_numpy(vectors))
    encoder.matrix.weight.copy_(torch.from_numpy(matrix))
    if encoder.interests > 1:
        encoder.centers.copy_(cluster_centers(model.weight[1 : solved + 1], encoder.interests))


def _right_singular_vectors(
    taken: sparse.csr_array, weights: NDArray[np.float32], count: int
) -> NDArray[np.float32]:
    """(M, count): of X B, by subspace iteration (Halko et al., 2011, Algorithm 4.4)."""
    width = min(count + _OVERSAMPLING, *taken.shape)
    block = np.random.default_rng(0).standard_normal((taken.shape[1], width), np.float32)
    for _ in range(_ITERATIONS):
        block, _ = np.linalg.qr(weights.T @ (taken.T @ (taken @ (weights @ block))))
    scores = taken @ (weights @ block)
    _, rotation = np.linalg.eigh(scores.T @ scores)
    vectors: NDArray[np.float32] = block @ rotation[:, ::-1][:, :count]
    return vectors


def _least_squares(
    basis: NDArray[np.float32], products: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The rows v of (n, dim) that solve basis v = y best, of the rows basis^T y of `products`."""
    gram = basis.T @ basis
    gram[np.diag_indices(len(gram))] += _RIDGE * gram.diagonal().mean()
    solution: NDArray[np.float32] = np.linalg.solve(gram, products.T).T
    return solution

"""Item vectors from what is taken together, for a training to begin with."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from training.data.packed_log import PackedLog
from training.models.options import ModelOptions

_WINDOW = 8  # two items of a history are a pair if they are at most so many positions apart
_SMOOTHING = 0.75  # exponent of the counts of contexts (Levy et al., TACL 2015, Section 3.2)
_MAX_ITEMS = 100_000  # most popular ones that get a vector
_MAX_INTERACTIONS = 2_000_000  # of a sample of the users


def initial_vectors(
    options: ModelOptions, log: PackedLog, items: int
) -> NDArray[np.float32] | None:
    """(M, D): of rows 1..M, as `cooccurrence_vectors`, as long as random ones are in the mean.

    None where `item_init` is random. items: in the catalogue.
    """
    if options.item_init == "random":
        return None
    length = options.item_init_std * math.sqrt(options.dim)
    return cooccurrence_vectors(log, items, options.dim) * np.float32(length)


def cooccurrence_vectors(
    log: PackedLog,
    items: int,
    dim: int,
    max_items: int = _MAX_ITEMS,
    max_interactions: int = _MAX_INTERACTIONS,
) -> NDArray[np.float32]:
    """Unit vectors (M, D) of rows 1..M, M at most `max_items`; zero for an item without any pair.

    Of the positive pointwise mutual information of items in the same histories, P = U S V^T, the
    first D of U S^1/2 (Levy and Goldberg, NeurIPS 2014, Section 3.3), each made as long as the
    others. A pair counts 1 / d for d positions between its items. items: in the catalogue. Of a log
    with more than `max_interactions` evenly chosen users are read.
    """
    size = min(items, max_items)
    counts = pair_counts(_sample(log, max_interactions), size)
    rank = min(dim, size - 1)
    vectors = np.zeros((size, dim), np.float32)
    if counts.nnz and rank > 0:
        left, singular, _ = randomized_svd(positive_pmi(counts), rank, random_state=0)
        vectors[:, :rank] = left * np.sqrt(singular)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(lengths > 0, lengths, 1)
    return vectors


def pair_counts(log: PackedLog, size: int) -> sparse.csr_array:
    """(size, size) float32, symmetric: of rows 1..size, a pair d positions apart counts 1 / d."""
    counts = sparse.csr_array((size, size), dtype=np.float32)
    for distance, later, earlier in log.pairs(_WINDOW):
        counted = (later <= size) & (earlier <= size) & (later != earlier)
        cells = later[counted] - 1, earlier[counted] - 1
        weights = np.full(len(cells[0]), 1 / distance, np.float32)
        counts = counts + sparse.csr_array((weights, cells), shape=(size, size))
    return sparse.csr_array(counts + counts.T)


def positive_pmi(counts: sparse.csr_array) -> sparse.csr_array:
    """max(0, log of P(item, context) / (P(item) P(context))), of smoothed contexts."""
    cells = counts.tocoo()
    items, contexts = cells.coords
    totals = counts.sum(axis=1).astype(np.float64)
    smoothed = totals**_SMOOTHING
    pmi = np.log(cells.data * smoothed.sum() / (totals[items] * smoothed[contexts]))
    positive = pmi > 0
    values = pmi[positive].astype(np.float32)
    return sparse.csr_array(
        (values, (items[positive], contexts[positive])), shape=counts.shape, dtype=np.float32
    )


def _sample(log: PackedLog, max_interactions: int) -> PackedLog:
    step = -(-len(log.rows) // max_interactions)
    return log if step <= 1 else log.take(np.arange(0, len(log), step))

"""From approximate scores with a known error to the exact scores of the best few."""

import numpy as np
from numpy.typing import NDArray

from index.ann.blocks import blocks
from index.retrieval.merge import QueryHits

_FEW = 8192  # scores, of which the k-th best is found at once
_BLOCKS = 32  # of scores, whose maxima give a lower bound of the k-th best
NO_HITS: QueryHits = (np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64))


def top_candidates(
    scores: NDArray[np.float32], error: float, k: int
) -> tuple[NDArray[np.int64], float]:
    """Positions of all scores that can belong to the k best, and the threshold.

    scores (M,), each wrong by `error` at most. The threshold is the k-th best of the given scores,
    or minus infinity if fewer than k are above that. Scores of minus infinity are left out.
    """
    threshold = kth_best(scores, k)
    if threshold == -np.inf:
        return np.flatnonzero(scores > threshold), threshold
    # The true scores of the k best are at least threshold - error, and so is the true k-th best.
    # Its approximate score is at least threshold - 2 error.
    return np.flatnonzero(scores >= threshold - 2 * error), threshold


def kth_best(scores: NDArray[np.float32], k: int) -> float:
    """Minus infinity if fewer than k scores are above that."""
    if k <= len(scores) <= _FEW and np.count_nonzero(scores == -np.inf) < len(scores) // 8:
        return float(np.partition(scores, -k)[-k])
    width, lower_bound = len(scores) // _BLOCKS, -np.inf
    if width > 2 * k:
        # The maximum over the blocks at each offset gives `width` scores. Any score below the k-th
        # best of these is not among the k best of all.
        maxima = scores[: width * _BLOCKS].reshape(_BLOCKS, width).max(axis=0)
        lower_bound = float(np.partition(maxima, -k)[-k])
    # Many equal scores, such as those of minus infinity, make np.partition slow.
    is_above = scores > lower_bound if lower_bound == -np.inf else scores >= lower_bound
    candidates = scores[is_above]
    return float(np.partition(candidates, -k)[-k]) if k <= len(candidates) else -np.inf


def score_rows(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], interests: NDArray[np.float32]
) -> QueryHits:
    """Rows, their best inner products with the interests (K, D), and the interests that give it."""
    products = interests @ vectors.take(rows, axis=0).T
    return rows, products.max(axis=0), products.argmax(axis=0)


def score_best(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], interests: NDArray[np.float32], k: int
) -> QueryHits:
    """As score_rows, of rows that ascend; only the k best of them, ties to the lower row."""
    best = NO_HITS
    for block in blocks(len(rows)):
        hits = score_rows(vectors, rows[block], interests)
        found = np.concatenate((best[0], hits[0]))
        scores = np.concatenate((best[1], hits[1]))
        found_by = np.concatenate((best[2], hits[2]))
        above = np.flatnonzero(scores >= kth_best(scores, k))
        kept = np.sort(above.take((-scores.take(above)).argsort(kind="stable")[:k]))
        best = found.take(kept), scores.take(kept), found_by.take(kept)
    return best

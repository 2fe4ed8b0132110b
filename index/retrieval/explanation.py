"""Why these candidates: what each interest brought, and what in the history it is made of."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ATTENDED = 10  # items of the history that are told of each interest


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of an answer of n candidates by K interests.

    scores (n, K): inner product of each candidate with each interest.
    shares (K,): the share of the candidates that each interest found; all 0 where there are none.
    attended (K): rows of the history with their share in the interest, largest first, then newest
    first, at most ATTENDED. They add up to 1 over the items that the encoder sees; of an item that
    stands there several times it is the sum.
    """

    scores: NDArray[np.float32]
    shares: NDArray[np.float64]
    attended: list[list[tuple[int, float]]]


def explain(
    interests: NDArray[np.float32],
    candidates: NDArray[np.float32],
    scores: NDArray[np.float32],
    winners: NDArray[np.int64],
    attention: NDArray[np.float32],
    seen: NDArray[np.int64],
) -> Explanation:
    """interests (K, D), candidates (n, D), scores, winners (n,): by which interest each was found.

    attention (K, L), to seen (L,): the rows of the history, newest last, 0 = padding.
    """
    shares = np.bincount(winners, minlength=len(interests)) / max(len(winners), 1)
    newest_first, shared = seen[::-1].tolist(), attention[:, ::-1].tolist()
    products = candidates @ interests.T
    products[np.arange(len(winners)), winners] = scores  # which may have been rounded otherwise
    return Explanation(
        scores=products,
        shares=shares,
        attended=[_attended(newest_first, weights) for weights in shared],
    )


def _attended(rows: list[int], weights: list[float]) -> list[tuple[int, float]]:
    totals: dict[int, float] = {}
    for row, weight in zip(rows, weights, strict=True):
        if row:
            totals[row] = totals.get(row, 0.0) + weight
    return sorted(totals.items(), key=lambda item: -item[1])[:ATTENDED]

"""Explanation of an answer: what each interest found, and the history items it attends to."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_ATTENDED = 10  # history items of an interest


@dataclass(frozen=True, slots=True)
class Explanation:
    """Explains an answer of n candidates by K interests.

    scores (n, K): inner product of each candidate with each interest.
    shares (K,): the share of the candidates that each interest found; all 0 if there are none.
    attended (K): for each interest, at most MAX_ATTENDED pairs of a history row and its attention
    weight, largest first, then newest first. Weights add up to 1 over the items that the encoder
    sees; the weights of an item that appears several times are added.
    """

    scores: NDArray[np.float32]
    shares: NDArray[np.float64]
    attended: list[list[tuple[int, float]]]


def explain(
    interests: NDArray[np.float32],
    candidates: NDArray[np.float32],
    scores: NDArray[np.float32],
    found_by: NDArray[np.int64],
    attention: NDArray[np.float32],
    encoded_rows: NDArray[np.int64],
) -> Explanation:
    """interests (K, D); candidates (n, D), with scores (n,) and the interest found_by (n,).

    attention (K, L), to encoded_rows (L,): rows of the history, newest last, 0 = padding.
    """
    shares = np.bincount(found_by, minlength=len(interests)) / max(len(found_by), 1)
    newest_first, weights = encoded_rows[::-1].tolist(), attention[:, ::-1].tolist()
    products = candidates @ interests.T
    # The same product may be rounded differently here: show the score of the answer.
    products[np.arange(len(found_by)), found_by] = scores
    return Explanation(
        scores=products,
        shares=shares,
        attended=[_attended(newest_first, of_interest) for of_interest in weights],
    )


def _attended(rows: list[int], weights: list[float]) -> list[tuple[int, float]]:
    totals: dict[int, float] = {}
    for row, weight in zip(rows, weights, strict=True):
        if row:
            totals[row] = totals.get(row, 0.0) + weight
    return sorted(totals.items(), key=lambda item: -item[1])[:MAX_ATTENDED]

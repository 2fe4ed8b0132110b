"""Whether the K interests of a user are several, and what they bring."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.retrieval.retriever import Answer, Query, Retriever

_BATCH = 256


def interest_health(
    retriever: Retriever, histories: Sequence[Sequence[int]], n: int = 50
) -> dict[str, float]:
    """Means over users, by the histories of rows they are shown with.

    interest_cosine: between two interests of a user; 1 is collapse.
    interest_entropy: of the share of a user's n best items that each interest won, over log K; 0 is
    one interest winning all.
    interest_union: distinct items among the n best of each interest, over K * n.
    These are 1, 0 and 1 where K is 1.
    category_diversity: the share of pairs among a user's n best items that differ in category;
    only where categories are known (ComiRec, KDD 2020).
    """
    cosines, entropies, unions, diversities = [], [], [], []
    for start in range(0, len(histories), _BATCH):
        batch = histories[start : start + _BATCH]
        interests = retriever.encode(batch)
        ids = [[retriever.catalog.id(row) for row in history] for history in batch]
        answers = retriever.recommend(
            [Query(history, n, False, measure_overlap=True) for history in ids]
        )
        cosines.append(_pairwise_cosine(interests))
        entropies += [_entropy(answer.interests, interests.shape[1]) for answer in answers]
        unions += [
            answer.overlap.distinct / answer.overlap.of for answer in answers if answer.overlap
        ]
        diversities += [_diversity(retriever, answer) for answer in answers]
    health = {
        "interest_cosine": float(np.concatenate(cosines).mean()),
        "interest_entropy": float(np.mean(entropies)),
        "interest_union": float(np.mean(unions)),
    }
    if any(retriever.catalog.categories):
        health["category_diversity"] = float(np.mean(diversities))
    return health


def _diversity(retriever: Retriever, answer: Answer) -> float:
    """Items without a category count as one category of their own."""
    categories = [retriever.catalog.categories[row - 1] for row in answer.rows.tolist()]
    count = len(categories)
    sizes = np.unique([category or "" for category in categories], return_counts=True)[1]
    pairs = count * (count - 1) / 2
    return 1 - float((sizes * (sizes - 1) / 2).sum()) / max(pairs, 1)


def _pairwise_cosine(interests: NDArray[np.float32]) -> NDArray[np.float32]:
    count = interests.shape[1]
    if count == 1:
        return np.ones(len(interests), dtype=np.float32)
    unit = interests / np.maximum(np.linalg.norm(interests, axis=2, keepdims=True), 1e-12)
    total = (unit @ unit.transpose(0, 2, 1)).sum(axis=(1, 2)) - count
    mean: NDArray[np.float32] = total / (count * (count - 1))
    return mean


def _entropy(winners: NDArray[np.int64], count: int) -> float:
    if count == 1 or not len(winners):
        return 0.0
    share = np.bincount(winners, minlength=count) / len(winners)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum() / math.log(count))

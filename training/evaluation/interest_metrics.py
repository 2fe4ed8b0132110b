"""How different the K interests of a user are, and how they share the results."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.retrieval.catalog import Catalog
from index.retrieval.query import Query
from index.retrieval.retriever import Retriever
from training.evaluation.interest_lists import interest_lists, without
from training.evaluation.metrics import DISTINCT_SHARE, CaseView, distinct_share
from training.evaluation.protocols import EvaluationCase
from training.evaluation.rankings import encode_cases

# The metrics of every release, and the one that needs categories.
COSINE, ENTROPY = "interest_cosine", "interest_entropy"
INTEREST_METRICS = (COSINE, ENTROPY, DISTINCT_SHARE)
CATEGORY_DIVERSITY = "category_diversity"
_BATCH = 256


def interest_metrics(
    retriever: Retriever,
    cases: Sequence[EvaluationCase],
    n: int = 50,
    exclude_seen: bool = False,
) -> dict[str, float]:
    """As merged_metrics, with the distinct_share, which takes a search for each interest.

    distinct_share: distinct items among the n best of each interest, over K * n; exclude_seen:
    without those of the history. 1 if K is 1.
    """
    shares = [
        distinct_share((), CaseView((), lists=[without(rows, seen) for rows in lists]), n)
        for case, lists in zip(cases, interest_lists(retriever, cases, n), strict=True)
        for seen in [{*case.history} if exclude_seen else set()]
    ]
    return merged_metrics(retriever, cases, n) | {DISTINCT_SHARE: float(np.mean(shares))}


def merged_metrics(
    retriever: Retriever, cases: Sequence[EvaluationCase], n: int = 50
) -> dict[str, float]:
    """Means over users, each with a known item, and no others. Items of the history are in.

    interest_cosine: mean cosine between two interests of a user; 1 is collapse, or K = 1.
    interest_entropy: entropy of the share of a user's n best items that each interest retrieved,
    over log K; 0 means that one interest retrieved all, or K = 1.
    category_diversity: the share of pairs among a user's n best items that differ in category;
    only if categories are known (ComiRec, KDD 2020).
    """
    cosines: list[NDArray[np.float32]] = []
    rows: list[NDArray[np.int64]] = []
    found_by: list[NDArray[np.int64]] = []
    for start in range(0, len(cases), _BATCH):
        batch = cases[start : start + _BATCH]
        interests = encode_cases(retriever, batch)
        queries = [
            Query([retriever.catalog.id(row) for row in case.history], n, False, ages=case.ages)
            for case in batch
        ]
        results = retriever.recommend(queries)
        cosines.append(pairwise_cosine(interests[:, :, : retriever.encoder.content]))
        rows += [result.rows for result in results]
        found_by += [result.interests for result in results]
    count = retriever.encoder.interests
    return of_rankings(np.concatenate(cosines), rows, found_by, count, retriever.catalog)


def of_rankings(
    cosines: NDArray[np.float32],
    rows: Sequence[NDArray[np.int64]],
    found_by: Sequence[NDArray[np.int64]],
    count: int,
    catalog: Catalog,
) -> dict[str, float]:
    """As merged_metrics, of each user's cosine, best rows, and which of `count` interests found
    each."""
    metrics = {
        COSINE: float(cosines.mean()),
        ENTROPY: float(np.mean([_entropy(interests, count) for interests in found_by])),
    }
    if any(catalog.categories):
        metrics[CATEGORY_DIVERSITY] = float(np.mean([_diversity(catalog, best) for best in rows]))
    return metrics


def _diversity(catalog: Catalog, rows: NDArray[np.int64]) -> float:
    """Items without a category count as one category of their own."""
    categories = [catalog.categories[row - 1] for row in rows.tolist()]
    count = len(categories)
    sizes = np.unique([category or "" for category in categories], return_counts=True)[1]
    pairs = count * (count - 1) / 2
    return 1 - float((sizes * (sizes - 1) / 2).sum()) / max(pairs, 1)


def pairwise_cosine(interests: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B,): the mean cosine between two of K interests (B, K, D); 1 if K is 1."""
    count = interests.shape[1]
    if count == 1:
        return np.ones(len(interests), dtype=np.float32)
    unit = interests / np.maximum(np.linalg.norm(interests, axis=2, keepdims=True), 1e-12)
    total = (unit @ unit.transpose(0, 2, 1)).sum(axis=(1, 2)) - count
    mean: NDArray[np.float32] = total / (count * (count - 1))
    return mean


def _entropy(interests: NDArray[np.int64], count: int) -> float:
    if count == 1 or not len(interests):
        return 0.0
    share = np.bincount(interests, minlength=count) / len(interests)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum() / math.log(count))

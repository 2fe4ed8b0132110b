"""What a retriever, and the popularity baseline, rank for each case."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from index.retrieval.retriever import Query, Retriever
from training.evaluation.metrics import CUTOFFS
from training.evaluation.protocols import EvaluationCase

DEPTH = max(CUTOFFS)
_BATCH = 256


def rank(
    retriever: Retriever, histories: Sequence[Sequence[str]], exclude_seen: bool = False
) -> Iterator[list[int]]:
    """For each history of item ids, oldest first, the rows of the DEPTH best items, best first."""
    for start in range(0, len(histories), _BATCH):
        batch = histories[start : start + _BATCH]
        queries = [Query(history, DEPTH, exclude_seen) for history in batch]
        for result in retriever.recommend(queries):
            yield result.rows.tolist()


def rank_cases(
    retriever: Retriever, cases: Sequence[EvaluationCase], exclude_seen: bool = False
) -> Iterator[list[int]]:
    """For each case its candidates, or else the DEPTH best items, as rows, best first."""
    if cases and cases[0].candidates is not None:
        return _rank_candidates(retriever, cases)
    catalog = retriever.catalog
    histories = [[catalog.id(row) for row in case.history] for case in cases]
    return rank(retriever, histories, exclude_seen)


def _rank_candidates(retriever: Retriever, cases: Sequence[EvaluationCase]) -> Iterator[list[int]]:
    """Each case's own candidates by the served score; ties go to the less popular."""
    for start in range(0, len(cases), _BATCH):
        batch = cases[start : start + _BATCH]
        interests = retriever.encode([case.history for case in batch])
        for case, vectors in zip(batch, interests, strict=True):
            rows = np.array((case.candidates or [])[::-1])
            scores = (retriever.vectors[rows] @ vectors.T).max(axis=1)
            yield rows[np.argsort(-scores, kind="stable")].tolist()


def popularity_order(counts: NDArray[np.int64], ids: Sequence[str]) -> list[int]:
    """Indices of the items that occur at all, most popular first; a hash of the id breaks ties.

    counts (n,): interactions in what a model may be trained on. Those of the whole log would tell
    what is taken later.
    """
    hashes = np.array([hashlib.blake2b(item.encode(), digest_size=8).digest() for item in ids])
    order = np.lexsort((hashes, -counts))
    indices: list[int] = order[counts[order] > 0].tolist()
    return indices


def rank_by_popularity(
    items: Sequence[int], cases: Sequence[EvaluationCase], exclude_seen: bool = False
) -> Iterator[list[int]]:
    """For each case its candidates, or else the first of `items`, which are most popular first.

    Candidates that are not among them come last, the held-out one at the very end.
    """
    position = {item: index for index, item in enumerate(items)}
    for case in cases:
        if case.candidates is not None:
            by_target = case.candidates[::-1]
            yield sorted(by_target, key=lambda item: position.get(item, len(items)))
            continue
        seen = set(case.history) if exclude_seen else set()
        yield [item for item in items[: DEPTH + len(seen)] if item not in seen]

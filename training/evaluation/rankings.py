"""What a retriever, and the popularity baseline, rank for each case."""

from collections.abc import Iterator, Sequence

import numpy as np

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


def rank_by_popularity(
    items: Sequence[int], cases: Sequence[EvaluationCase], exclude_seen: bool = False
) -> Iterator[list[int]]:
    """For each case its candidates, or else the first of `items`, which are most popular first."""
    for case in cases:
        if case.candidates is not None:
            yield sorted(case.candidates)
            continue
        seen = set(case.history) if exclude_seen else set()
        yield [item for item in items[: DEPTH + len(seen)] if item not in seen]

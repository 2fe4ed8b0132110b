"""What a retriever, and the baselines, rank for each case."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from index.retrieval.query import Query
from index.retrieval.retriever import Retriever
from training.evaluation.metrics import CUTOFFS
from training.evaluation.protocols import EvaluationCase

DEPTH = max(CUTOFFS)
_BATCH = 256

# The rankings of cases; whether the items of the histories are left out.
Ranker = Callable[[Sequence[EvaluationCase], bool], Iterator[list[int]]]
# From B histories of rows to scores (B, N) of rows 1 to N.
Scorer = Callable[[Sequence[Sequence[int]]], NDArray[np.float32]]


def rank(
    retriever: Retriever,
    histories: Sequence[tuple[Sequence[str], Sequence[float] | None]],
    exclude_seen: bool = True,
) -> Iterator[list[int]]:
    """For each history of item ids, oldest first, the rows of the DEPTH best items, best first.

    histories: with the ages of their items, if these are known.
    """
    for start in range(0, len(histories), _BATCH):
        batch = histories[start : start + _BATCH]
        queries = [Query(history, DEPTH, exclude_seen, ages=ages) for history, ages in batch]
        for result in retriever.recommend(queries):
            yield result.rows.tolist()


def encode_cases(retriever: Retriever, cases: Sequence[EvaluationCase]) -> NDArray[np.float32]:
    """Interests (B, K, D) of cases with a known item each, and no others."""
    return retriever.encode([case.history for case in cases], [case.ages for case in cases])


def rank_cases(
    retriever: Retriever, cases: Sequence[EvaluationCase], exclude_seen: bool = True
) -> Iterator[list[int]]:
    """For each case its candidates, or else the DEPTH best items, as rows, best first.

    Rows above those of the catalogue are of items that it does not know: they are never ranked.
    """
    if cases and cases[0].candidates is not None:
        return _rank_candidates(retriever, cases, exclude_seen)
    catalog = retriever.catalog
    known = (case.known(len(catalog)) for case in cases)
    histories = [([catalog.id(row) for row in case.history], case.ages) for case in known]
    return rank(retriever, histories, exclude_seen)


def _rank_candidates(
    retriever: Retriever, cases: Sequence[EvaluationCase], exclude_seen: bool
) -> Iterator[list[int]]:
    """Each case's own candidates by the served score; the held-out one is the last of a tie.

    Without a known item in the history, popularity is the score, as in the service.
    """
    size = len(retriever.catalog)
    for start in range(0, len(cases), _BATCH):
        batch = [case.known(size) for case in cases[start : start + _BATCH]]
        encoded = [case for case in batch if case.history]
        interests = iter(encode_cases(retriever, encoded) if encoded else ())
        for case in batch:
            seen = set(case.history) if exclude_seen else set()
            candidates = (case.candidates or [])[::-1]
            rows = np.array([row for row in candidates if row <= size and row not in seen], int)
            if case.history:
                scores = (retriever.vectors[rows] @ next(interests).T).max(axis=1)
            else:
                scores = retriever.catalog.popularity[rows - 1]
            yield rows[np.argsort(-scores, kind="stable")].tolist()


def rank_by_popularity(
    items: Sequence[int], cases: Sequence[EvaluationCase], exclude_seen: bool = True
) -> Iterator[list[int]]:
    """For each case its candidates, or else the first of `items`, which are most popular first.

    Candidates that are not among them come last, the held-out one at the very end.
    """
    position = {item: index for index, item in enumerate(items)}
    for case in cases:
        seen = set(case.history) if exclude_seen else set()
        if case.candidates is not None:
            allowed = [item for item in case.candidates[::-1] if item not in seen]
            yield sorted(allowed, key=lambda item: position.get(item, len(items)))
            continue
        yield [item for item in items[: DEPTH + len(seen)] if item not in seen]


def rank_by_scores(
    score: Scorer, items: Sequence[int], cases: Sequence[EvaluationCase], exclude_seen: bool = True
) -> Iterator[list[int]]:
    """For each case its candidates, or else the DEPTH best of `items`, by score.

    items: rows, most popular first: of equal scores the first is ranked first. Among candidates the
    held-out one is the last of a tie.
    """
    columns = np.array(items) - 1
    for start in range(0, len(cases), _BATCH):
        batch = cases[start : start + _BATCH]
        for case, scores in zip(batch, score([case.history for case in batch]), strict=True):
            seen = set(case.history) if exclude_seen else set()
            if case.candidates is not None:
                rows = np.array([row for row in case.candidates[::-1] if row not in seen], int)
                yield rows[np.argsort(-scores[rows - 1], kind="stable")].tolist()
                continue
            best = np.argsort(-scores[columns], kind="stable")[: DEPTH + len(seen)]
            ranked: list[int] = (columns[best] + 1).tolist()
            yield [row for row in ranked if row not in seen]

"""What each interest of a user retrieves alone."""

from collections.abc import Iterator, Sequence

from index.retrieval.merge import merge_query_hits
from index.retrieval.retriever import Retriever
from training.evaluation.protocols import EvaluationCase
from training.evaluation.rankings import encode_cases

_BATCH = 64


def interest_lists(
    retriever: Retriever, cases: Sequence[EvaluationCase], n: int
) -> Iterator[list[list[int]]]:
    """For each case K lists: the rows of each interest's n best items, best first, and as many more
    as the history has items, so that n are left when these are removed.

    Each history has a known item, and no others.
    """
    for start in range(0, len(cases), _BATCH):
        batch = cases[start : start + _BATCH]
        interests = encode_cases(retriever, batch)
        for vectors, case in zip(interests, batch, strict=True):
            depth = n + len({*case.history})
            hits = retriever.index.search(vectors[:, None, :], depth)
            merged = (merge_query_hits(*of_one) for of_one in zip(*hits, strict=True))
            yield [rows[rows > 0][:depth].tolist() for rows, _, _ in merged]


def without(rows: Sequence[int], seen: set[int]) -> list[int]:
    return [row for row in rows if row not in seen]

"""Canary queries: histories whose answers a release must still give when it is opened."""

from collections.abc import Sequence
from pathlib import Path

from index.release.errors import ReleaseError, as_release_error
from index.release.manifest import Canary
from index.retrieval.query import Query
from index.retrieval.retriever import Retriever

CANARY_K = 20
_MIN_OVERLAP = 0.9  # another processor may order near-ties differently


def check_canaries(folder: Path, retriever: Retriever, canaries: Sequence[Canary]) -> None:
    """Raises ReleaseError if an answer differs too much from the one the release was built with."""
    with as_release_error(f"{folder.name}: a canary query cannot be answered"):
        answers = answer_canaries(retriever, canaries)
    for canary, items in zip(canaries, answers, strict=True):
        shared = len(set(canary.items) & set(items))
        if shared < _MIN_OVERLAP * len(canary.items):
            raise ReleaseError(
                f"{folder.name}: a canary query gives {shared} of the {len(canary.items)} items "
                "it gave when built; build it again"
            )


def answer_canaries(retriever: Retriever, canaries: Sequence[Canary]) -> list[tuple[str, ...]]:
    """Item ids for each canary query, best first."""
    answers = retriever.recommend([Query(canary.history, CANARY_K, True) for canary in canaries])
    return [tuple(retriever.catalog.id(int(row)) for row in answer.rows) for answer in answers]

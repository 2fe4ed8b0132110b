"""What each interest of a user retrieves alone."""

from collections.abc import Iterator, Sequence

from index.retrieval.merge import merge_query_hits
from index.retrieval.retriever import Retriever

_BATCH = 64


def interest_lists(
    retriever: Retriever, histories: Sequence[Sequence[int]], n: int
) -> Iterator[list[list[int]]]:
    """For each history of rows, K lists: the rows of each interest's n best items, best first,
    and as many more as the history has items, so that n are left when these are removed.

    Each history has a known item.
    """
    for start in range(0, len(histories), _BATCH):
        batch = histories[start : start + _BATCH]
        interests = retriever.encode(batch)
        for vectors, history in zip(interests, batch, strict=True):
            hits = retriever.index.search(vectors[:, None, :], n + len({*history}))
            merged = (merge_query_hits(*of_one) for of_one in zip(*hits, strict=True))
            yield [rows[rows > 0][: n + len({*history})].tolist() for rows, _, _ in merged]


def without(rows: Sequence[int], seen: set[int]) -> list[int]:
    return [row for row in rows if row not in seen]

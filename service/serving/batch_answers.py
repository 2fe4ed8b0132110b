"""The answers of a batch: of all queries together, or one by one if one of them fails."""

from collections.abc import Iterator, Sequence

from index.release.reading import Release
from index.retrieval.delta import Delta
from index.retrieval.query import Answer, Query
from index.retrieval.search import SearchUnavailableError, Timings


def answers_of(
    release: Release,
    queries: Sequence[Query],
    timings: Timings,
    withdrawn: frozenset[int],
    delta: Delta | None,
) -> Iterator[tuple[int, Answer | Exception]]:
    """Positions, and the answer or the error of each."""
    remaining = set(range(len(queries)))
    try:
        for position, answer in release.retriever.answers(queries, timings, withdrawn, delta):
            remaining.remove(position)
            yield position, answer
    except SearchUnavailableError as error:  # to each on its own it would not answer either
        yield from ((position, error) for position in remaining)
        return
    except Exception as error:
        if len(queries) == 1:
            yield 0, error
            return
    for position in remaining:
        [(_, outcome)] = answers_of(release, [queries[position]], timings, withdrawn, delta)
        yield position, outcome

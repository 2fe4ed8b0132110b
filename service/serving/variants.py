"""The queries of a batch by the release that answers them, and back to the requests."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from index.release.reading import Release
from index.retrieval.delta import Delta
from index.retrieval.query import Answer, Query
from index.retrieval.search import Timings
from service.serving.outcome import QueryResult
from service.serving.request_queue import QueuedRequest
from service.telemetry.canary_metrics import Variant


class VariantQueries(NamedTuple):
    """Queries for one release. positions: theirs among those of the whole batch.

    variant: None while no canary runs.
    """

    release: Release
    queries: Sequence[Query]
    positions: Sequence[int]
    variant: Variant | None = None


class Found(NamedTuple):
    answer: Answer | Exception
    part: VariantQueries
    delta: Delta | None


def by_variant(
    batch: Sequence[QueuedRequest], current: Release, canary: Release | None
) -> Iterator[VariantQueries]:
    """All queries for the release in use, unless a canary runs."""
    queries = [query for request in batch for query in request.queries]
    if canary is None:
        yield VariantQueries(current, queries, range(len(queries)))
        return
    variants = [
        variant
        for request in batch
        for variant in request.variants or ["current"] * len(request.queries)
    ]
    releases: dict[Variant, Release] = {"current": current, "canary": canary}
    for name, release in releases.items():
        positions = [place for place, variant in enumerate(variants) if variant == name]
        if positions:
            yield VariantQueries(release, [queries[place] for place in positions], positions, name)


def resolve(
    batch: Sequence[QueuedRequest], found: Mapping[int, Found], start: float, timings: Timings
) -> None:
    """Give each request its outcomes. found: by position in the batch, which began at `start`."""
    outcomes = (found[position] for position in range(len(found)))
    for request in batch:
        queue_s = start - request.enqueued
        request.resolve(
            [
                answer
                if isinstance(answer, Exception)
                else QueryResult(answer, part.release, timings, queue_s, delta, part.variant)
                for answer, part, delta in islice(outcomes, len(request.queries))
            ]
        )

"""What the engine returns for a query: its result, or the error that it raised."""

from dataclasses import dataclass
from typing import TypeAlias

from index.release.reading import Release
from index.retrieval.delta import Delta
from index.retrieval.query import Answer
from index.retrieval.search import Timings
from service.telemetry.canary_metrics import Variant


@dataclass(frozen=True, slots=True)
class QueryResult:
    """An answer, and how it was made.

    release: the one release that it is from; delta: the new items beside it. queue_s: seconds that
    the request waited; timings: of its whole batch. variant: None while no canary runs.
    """

    answer: Answer
    release: Release
    timings: Timings
    queue_s: float
    delta: Delta | None = None
    variant: Variant | None = None


Outcome: TypeAlias = QueryResult | Exception

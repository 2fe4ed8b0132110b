"""The queue before the engine: requests in order of arrival, counted by their queries."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from index.retrieval.query import Query
from service.serving.outcome import Outcome
from service.telemetry.canary_metrics import Variant


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """One request. Its queries are answered in one batch.

    is_disconnected: whether nobody waits for the outcomes any more. enqueued, deadline: on the
    clock of time.perf_counter. variants: which release each query is for, while a canary runs.
    """

    queries: Sequence[Query]
    is_disconnected: Callable[[], bool]
    outcomes: asyncio.Future[list[Outcome]]
    enqueued: float
    deadline: float
    variants: Sequence[Variant] | None = None

    def resolve(self, outcomes: list[Outcome]) -> None:
        if not self.outcomes.done():
            self.outcomes.set_result(outcomes)

    def fail(self, error: Exception) -> None:
        if not self.outcomes.done():
            self.outcomes.set_exception(error)


class RequestQueue:
    """depth: queries that wait."""

    def __init__(self) -> None:
        self.depth = 0
        self._requests: deque[QueuedRequest] = deque()

    def __bool__(self) -> bool:
        return bool(self._requests)

    @property
    def age_s(self) -> float:
        """Seconds that the first request has waited."""
        return time.perf_counter() - self._requests[0].enqueued if self._requests else 0.0

    @property
    def next_size(self) -> int:
        """Queries of the first request."""
        return len(self._requests[0].queries)

    def push(self, request: QueuedRequest) -> None:
        self._requests.append(request)
        self.depth += len(request.queries)

    def pop(self) -> QueuedRequest:
        request = self._requests.popleft()
        self.depth -= len(request.queries)
        return request

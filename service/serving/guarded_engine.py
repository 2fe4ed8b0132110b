"""An engine behind a circuit breaker: while it fails, no request waits for it."""

import logging
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from index.ann.engine import Engine
from index.ann.spec import MilvusSpec
from index.retrieval.filters import Filters
from index.retrieval.merge import Hits, QueryHits, stack_hits
from index.retrieval.search import ItemIndex, SearchUnavailableError
from service.store.circuit_breaker import CircuitBreaker

log = logging.getLogger(__name__)


class GuardedEngine:
    """An Engine whose indexes share the breaker."""

    def __init__(self, engine: Engine, breaker: CircuitBreaker) -> None:
        self._engine = engine
        self._breaker = breaker

    def open(self, spec: MilvusSpec, vectors: NDArray[np.float32]) -> ItemIndex:
        return _GuardedIndex(self._engine.open(spec, vectors), self._breaker)


class _GuardedIndex:
    """Raises SearchUnavailableError at once while the circuit is open, except for a trial."""

    def __init__(self, index: ItemIndex, breaker: CircuitBreaker) -> None:
        self._index = index
        self._breaker = breaker

    def search(self, interests: NDArray[np.float32], k: int, filters: Filters = None) -> Hits:
        return stack_hits([*self.iter_search(interests, k, filters)])

    def iter_search(
        self, interests: NDArray[np.float32], k: int, filters: Filters = None
    ) -> Iterator[QueryHits]:
        if not self._breaker.admits():
            raise SearchUnavailableError("engine: fails, and is not asked for now; try again later")
        try:
            hits = [*self._index.iter_search(interests, k, filters)]
        except SearchUnavailableError as error:
            was_open = self._breaker.is_open
            self._breaker.record_failure()
            if not was_open:
                cause = error.__cause__
                log.warning(
                    "engine failed",
                    extra={"error": str(error), "cause": type(cause).__name__ if cause else None},
                )
            raise
        self._breaker.record_success()
        yield from hits

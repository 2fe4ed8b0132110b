"""Requests -> batches -> retriever: answered on the event loop, bounded, in the order they came.

Batch while busy: what arrives while a batch is answered forms the next; nothing waits for a batch
to fill, and no timer runs. A batch is answered on the event loop itself. A thread for it was
measured and was slower: with one core for each process nothing runs beside it, and every hand-over
of the interpreter's lock has to wait for the other side.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from index.release import Release
from index.retriever import Answer, Query, Timings
from service.errors import ClientGoneError, NotReadyError, OverloadedError
from service.live import LiveRelease
from service.metrics import Metrics

# Turns of the event loop between two batches. A request goes through several, such as those of its
# history's way to Redis and back: with a batch in each, it would wait for as many.
_TURNS = 4


@dataclass(frozen=True, slots=True)
class Served:
    """An answer, the one release it is from, and the seconds that its batch took."""

    answer: Answer
    release: Release
    timings: Timings
    queue: float


@dataclass(frozen=True, slots=True)
class _Waiting:
    query: Query
    is_gone: Callable[[], bool]
    served: asyncio.Future[Served]
    since: float


class Engine:
    """Answers queries with the release in use when their batch starts.

    queue_limit: queries that may wait. batch_limit: queries in one batch.
    """

    def __init__(
        self,
        live: LiveRelease,
        metrics: Metrics,
        queue_limit: int,
        batch_limit: int,
        deadline_s: float,
    ) -> None:
        self._live = live
        self._metrics = metrics
        self._queue_limit = queue_limit
        self._batch_limit = batch_limit
        self._deadline_s = deadline_s
        self._queue: deque[_Waiting] = deque()
        self._running = False
        metrics.watch_queue(lambda: len(self._queue))

    def admit(self) -> None:
        """Raises NotReadyError or OverloadedError if a query given now would be refused."""
        if self._live.release is None:
            self._metrics.refused["not_ready"].inc()
            raise NotReadyError("release: none is loaded yet; GET /release says why, try again")
        if len(self._queue) >= self._queue_limit:
            self._metrics.refused["queue_full"].inc()
            raise OverloadedError(
                f"queue: {len(self._queue)} requests wait, as many as may; try again later"
            )

    async def answer(self, query: Query, is_gone: Callable[[], bool]) -> Served:
        """The answer, once its turn has come. is_gone: whether nobody waits for it any more.

        Raises NotReadyError, OverloadedError or ClientGoneError.
        """
        self.admit()
        loop = asyncio.get_running_loop()
        waiting = _Waiting(query, is_gone, loop.create_future(), time.perf_counter())
        self._queue.append(waiting)
        if not self._running:
            self._running = True
            loop.call_soon(self._run, 0)
        return await waiting.served

    def _run(self, turns: int) -> None:
        """Answer a batch after so many turns of the event loop, and so on until none waits."""
        if turns == 0:
            if not self._queue:
                self._running = False
                return
            batch = self._next_batch()
            if batch:
                self._answer(batch)
            turns = _TURNS
        asyncio.get_running_loop().call_soon(self._run, turns - 1)

    def _next_batch(self) -> list[_Waiting]:
        now = time.perf_counter()
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self._batch_limit:
            waiting = self._queue.popleft()
            if not self._is_dropped(waiting, now):
                batch.append(waiting)
        return batch

    def _is_dropped(self, waiting: _Waiting, now: float) -> bool:
        if waiting.served.done() or waiting.is_gone():
            self._metrics.refused["client_gone"].inc()
            _fail(waiting, ClientGoneError("client: hung up before its turn"))
            return True
        if now - waiting.since > self._deadline_s:
            self._metrics.refused["deadline"].inc()
            _fail(
                waiting,
                OverloadedError(
                    f"queue: waited {now - waiting.since:.1f} s, longer than the "
                    f"{self._deadline_s:g} s allowed; try again later"
                ),
            )
            return True
        return False

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        release, start, timings = self._live.release, time.perf_counter(), Timings()
        assert release is not None, "a query was admitted without a release; this is a bug"
        try:
            answers = release.retriever.recommend([waiting.query for waiting in batch], timings)
        except Exception as error:
            self._isolate(batch, release, error)
            return
        queue = start - batch[0].since
        self._observe(len(batch), queue, timings)
        for waiting, answer in zip(batch, answers, strict=True):
            waiting.served.set_result(Served(answer, release, timings, start - waiting.since))

    def _isolate(self, batch: Sequence[_Waiting], release: Release, error: Exception) -> None:
        """Answer the queries of a failed batch one by one, so that one cannot spoil the others."""
        if len(batch) == 1:
            _fail(batch[0], error)
            return
        for waiting in batch:
            self._answer([waiting])

    def _observe(self, size: int, queue: float, timings: Timings) -> None:
        self._metrics.batch_size.observe(size)
        self._metrics.queue_s.observe(queue)
        self._metrics.encode_s.observe(timings.encode)
        self._metrics.search_s.observe(timings.search)
        self._metrics.merge_s.observe(timings.merge)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.served.done():
        waiting.served.set_exception(error)

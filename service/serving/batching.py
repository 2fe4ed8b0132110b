"""Requests -> batches -> retriever: answered on the event loop, bounded, in order of arrival.

Batching is continuous: the requests that arrive during a batch form the next. No request waits for
a batch to fill, and there is no timer. A request that could not be answered by its deadline is
rejected on arrival, at a small part of the cost of an answer. A batch is answered on the event loop
itself. A separate thread was measured and was slower: each process has one core, so nothing runs in
parallel, and every hand-over of the interpreter's lock has to wait for the other side.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from index.release.reading import Release
from index.retrieval.delta import Delta
from index.retrieval.query import Answer, Query
from index.retrieval.search import Timings
from service.errors import ClientDisconnectedError, NotReadyError, OverloadedError
from service.serving.batch_answers import answers_of
from service.serving.outcome import Outcome, QueryResult
from service.serving.release_loader import ReleaseLoader
from service.serving.request_queue import QueuedRequest, RequestQueue
from service.serving.variants import Found, by_variant, resolve
from service.serving.wait_estimate import WaitEstimate
from service.telemetry.canary_metrics import Variant
from service.telemetry.metrics import Metrics

# Seconds for which a batch may block the event loop, plus the rest of its last query: usually, and
# while requests are rejected, which must not wait for it. Always the short one would cost a tenth
# of the answers: between two slices more is done than to reject, with the processor's caches cold.
_TIME_SLICE_S = 0.01
_SHORT_TIME_SLICE_S = 0.002

# Iterations of the event loop between two batches. A request takes several, such as those for the
# round trip to Redis: with a batch in each, it would wait for as many batches.
_ITERATIONS_BETWEEN_BATCHES = 4
# With a whole batch in the queue: one iteration writes the responses, and one rejects the requests
# that arrived meanwhile.
_ITERATIONS_WHEN_BUSY = 2

# Largest expected wait, as a share of the time to the deadline. With all of it, the queue would be
# so long that one pause of this process makes every request in it late.
_MAX_WAIT_SHARE = 0.5

# What a batch waits for before it goes on; None if for nothing.
Waited = asyncio.Future[list[tuple[int, Answer | Exception]]] | None

log = logging.getLogger(__name__)


class Engine:
    """Answers queries with the releases that are in use when their batch starts.

    max_queue_size: queries that may wait. max_batch_size: queries in one batch, except for a
    request that has more by itself. deadline_s: from the arrival of a query that has no deadline of
    its own; deadlines are on the clock of time.perf_counter. withdrawn: the rows of a release that
    must be in no answer; delta: the new items beside it; detailed: it with the details of items as
    they are now. All are called once for each release of a batch. canary: the other release in use.
    """

    def __init__(
        self,
        live: ReleaseLoader,
        metrics: Metrics,
        max_queue_size: int,
        max_batch_size: int,
        deadline_s: float,
        withdrawn: Callable[[Release], frozenset[int]] = lambda _: frozenset(),
        delta: Callable[[Release], Delta | None] = lambda _: None,
        canary: Callable[[], Release | None] = lambda: None,
        detailed: Callable[[Release], Release] = lambda release: release,
    ) -> None:
        self._live = live
        self.withdrawn = withdrawn
        self._delta = delta
        self._canary, self._detailed = canary, detailed
        self._metrics = metrics
        self._queue_limit = max_queue_size
        self._max_batch_size = max_batch_size
        self._deadline_s = deadline_s
        self._queue = RequestQueue()
        self._estimate = WaitEstimate(max_batch_size)
        self._running = False
        self._waiter = ThreadPoolExecutor(1, "search")  # its thread starts when it is used
        self._batch: Iterator[Waited] | None = None
        self._taken: list[QueuedRequest] = []  # from the queue, for the batch
        self._time_slice_s = _TIME_SLICE_S
        self._rejecting = False

    @property
    def depth(self) -> int:
        """Queries that wait."""
        return self._queue.depth

    @property
    def age_s(self) -> float:
        """Seconds that the first request has waited."""
        return self._queue.age_s

    def is_full(self, depth: int) -> bool:
        """Whether a query behind `depth` others would be rejected, whatever its deadline."""
        max_wait_s = _MAX_WAIT_SHARE * self._deadline_s
        if depth >= self._queue_limit or self._estimate.wait_s(depth, self._running) > max_wait_s:
            self._rejecting = True
            return True
        return False

    def admit(self, deadline: float = math.inf) -> None:
        """Raises NotReadyError or OverloadedError if a query would be rejected now."""
        if self._live.release is None:
            self._metrics.rejected_requests["not_ready"].inc()
            raise NotReadyError("release: none is loaded yet; GET /release says why, try again")
        if self.depth >= self._queue_limit:
            self._rejecting = True
            self._metrics.rejected_requests["queue_full"].inc()
            raise OverloadedError(
                f"queue: {self.depth} requests wait, the most that are allowed; try again later"
            )
        wait_s = self._estimate.wait_s(self.depth, self._running)
        if wait_s > _MAX_WAIT_SHARE * min(self._deadline_s, deadline - time.perf_counter()):
            self._rejecting = True
            self._metrics.rejected_requests["wait"].inc()
            raise OverloadedError(
                f"queue: the wait is about {wait_s * 1e3:.0f} ms, too long to be sure of an answer "
                "before the deadline; try again later"
            )

    async def answer(
        self,
        query: Query,
        is_disconnected: Callable[[], bool],
        deadline: float | None = None,
        variants: Sequence[Variant] | None = None,
    ) -> QueryResult:
        """The result of one query. is_disconnected: whether nobody waits for it any more.

        Raises NotReadyError, OverloadedError or ClientDisconnectedError.
        """
        [outcome] = await self.answer_all([query], is_disconnected, deadline, variants)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def answer_all(
        self,
        queries: Sequence[Query],
        is_disconnected: Callable[[], bool],
        deadline: float | None = None,
        variants: Sequence[Variant] | None = None,
    ) -> list[Outcome]:
        """The outcome of each query of one request, all answered in one batch.

        variants: the release for each query; without it, all are answered by the one in use.
        An exception among the outcomes is that of a single query. Raises as `answer` does.
        """
        now = time.perf_counter()
        deadline = now + self._deadline_s if deadline is None else deadline
        self.admit(deadline)
        loop = asyncio.get_running_loop()
        request = QueuedRequest(
            queries, is_disconnected, loop.create_future(), now, deadline, variants
        )
        self._queue.push(request)
        if not self._running:
            self._running = True
            loop.call_soon(self._run, 0)
        return await request.outcomes

    def _run(self, iterations: int) -> None:
        """After so many iterations of the event loop answer, and repeat until no request waits."""
        if iterations == 0:
            try:
                iterations = self._continue()
            except Exception as error:  # else no request would ever be answered again
                iterations = self._recover(error)
            if iterations == 0:
                return
        asyncio.get_running_loop().call_soon(self._run, iterations - 1)

    def _continue(self) -> int:
        """The iterations of the event loop until the next time slice; 0 if no request waits."""
        if self._batch is None and not self._queue:
            self._running = False
            self._estimate.became_idle(time.perf_counter())
            return 0
        return self._run_slice()

    def _recover(self, error: Exception) -> int:
        """Fail the requests under way, so that nobody waits for them, and go on with the rest."""
        self._count_failure(error)
        if not self._taken and self._queue:  # the error would come again for as long as it waits
            self._taken.append(self._queue.pop())
        for request in self._taken:
            request.fail(error)
        self._taken.clear()
        self._batch = None
        self._running = bool(self._queue)
        return int(self._running)

    def _count_failure(self, error: Exception) -> None:
        self._metrics.task_failures["engine"].inc()
        log.error("engine failed", exc_info=error)

    def _run_slice(self) -> int:
        """Answer for a slice; the event loop's iterations until the next, 0 if a wait begins it."""
        if self._batch is None:
            self._time_slice_s = _SHORT_TIME_SLICE_S if self._rejecting else _TIME_SLICE_S
            self._rejecting = False
            self._taken.clear()
            self._batch = self._answer(self._next_batch())
        end = time.perf_counter() + self._time_slice_s
        for waited in self._batch:
            if waited is not None:  # for another process, and the event loop goes on meanwhile
                waited.add_done_callback(lambda _: self._run(0))
                return 0
            if time.perf_counter() > end:
                return 1
        self._batch = None
        busy = self.depth >= self._max_batch_size
        return _ITERATIONS_WHEN_BUSY if busy else _ITERATIONS_BETWEEN_BATCHES

    def _next_batch(self) -> list[QueuedRequest]:
        now = time.perf_counter()
        expected_end = now + self._estimate.interval_s
        batch: list[QueuedRequest] = []
        size = 0
        while self._queue and (not batch or size + self._queue.next_size <= self._max_batch_size):
            request = self._queue.pop()
            self._taken.append(request)
            # The first is answered even if it is expected to be late: else a wrong estimate would
            # never be corrected.
            if not self._drop(request, now, expected_end if batch else now):
                batch.append(request)
                size += len(request.queries)
        self._estimate.batch_began(now)
        return batch

    def _drop(self, request: QueuedRequest, now: float, expected_end: float) -> bool:
        """Fail a request that needs no answer any more; whether it was one."""
        try:
            is_gone = request.outcomes.done() or request.is_disconnected()
        except Exception as error:
            self._count_failure(error)
            request.fail(error)
            return True
        if is_gone:
            self._metrics.rejected_requests["client_gone"].inc()
            request.fail(
                ClientDisconnectedError("client: disconnected before its request was answered")
            )
            return True
        if expected_end > request.deadline:
            self._metrics.rejected_requests["deadline"].inc()
            waited_ms = (now - request.enqueued) * 1e3
            request.fail(
                OverloadedError(
                    f"queue: waited {waited_ms:.0f} ms, too long for an answer before the "
                    "deadline; try again later"
                )
            )
            return True
        return False

    def _answer(self, batch: Sequence[QueuedRequest]) -> Iterator[Waited]:
        """Yields after each query. Resolves all requests at the end: little between two queries."""
        try:
            if batch:
                yield from self._retrieve(batch)
        except Exception as error:
            self._count_failure(error)
            for request in batch:
                request.fail(error)

    def _retrieve(self, batch: Sequence[QueuedRequest]) -> Iterator[Waited]:
        current, start, timings = self._live.release, time.perf_counter(), Timings()
        assert current is not None, "a query was admitted without a release; this is a bug"
        found: dict[int, Found] = {}
        for part in by_variant(batch, current, self._canary()):
            withdrawn, delta = self.withdrawn(part.release), self._delta(part.release)
            part = part._replace(release=self._detailed(part.release))
            answers = answers_of(part.release, part.queries, timings, withdrawn, delta)
            if part.release.searches_elsewhere:
                waited = asyncio.get_running_loop().run_in_executor(self._waiter, list, answers)
                yield waited
                answers = iter(waited.result())
            for position, answer in answers:
                found[part.positions[position]] = Found(answer, part, delta)
                yield None
        self._observe(len(found), start - batch[0].enqueued, timings)
        resolve(batch, found, start, timings)

    def _observe(self, size: int, queue_s: float, timings: Timings) -> None:
        self._metrics.batch_size.observe(size)
        self._metrics.queue_s.observe(queue_s)
        self._metrics.encode_s.observe(timings.encode)
        self._metrics.search_s.observe(timings.search)
        self._metrics.merge_s.observe(timings.merge)

"""Requests -> batches -> retriever: answered on the event loop, bounded, in the order they came.

Batch while busy: what arrives while a batch is answered forms the next; nothing waits for a batch
to fill, and no timer runs. What could not be answered by its deadline is refused as it comes, for
a small part of what an answer costs. A batch is answered on the event loop itself. A thread for it
was measured and was slower: with one core for each process nothing runs beside it, and every
hand-over of the interpreter's lock has to wait for the other side.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from index.release.reading import Release
from index.retrieval.delta import Delta
from index.retrieval.retriever import Answer, Query
from index.retrieval.search import Timings
from service.errors import ClientDisconnectedError, NotReadyError, OverloadedError
from service.serving.release_loader import LiveRelease
from service.telemetry.metrics import Metrics

# Seconds for which a batch keeps the event loop, but for the rest of the last answer; and while
# others are refused, who need not wait for it. Always short, it would answer a tenth less: between
# two turns more is done than to refuse, and all of it finds the processor's caches cold.
_TURN_S = 0.01
_SHORT_TURN_S = 0.002

# Turns of the event loop between two batches. A request goes through several, such as those of its
# history's way to Redis and back: with a batch in each, it would wait for as many.
_TURNS = 4

# Of the time to its deadline, what a query may be expected to wait. With all of it the queue would
# be so long that a pause of this process makes all in it late at once.
_SHARE = 0.5
_PAUSE = 2  # times as long as expected: what takes longer is not the work of a batch


@dataclass(frozen=True, slots=True)
class Served:
    """An answer, the one release it is from, and the seconds that its batch took.

    delta: what stood beside the release.
    """

    answer: Answer
    release: Release
    timings: Timings
    queue: float
    delta: Delta | None = None


Outcome = Served | Exception


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One request: its queries, which are answered in one batch, and what is to become of them."""

    queries: Sequence[Query]
    is_gone: Callable[[], bool]
    outcomes: asyncio.Future[list[Outcome]]
    since: float
    deadline: float


class _Pace:
    """Seconds from one batch to the next, or to when none waits, with all that is done in between.

    Of batches and not of queries: under overload most of it goes to refusals, however few queries a
    batch has. A pause of the process counts for little, and every batch puts right what is wrong.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began: float | None = None

    def begin(self, now: float) -> None:
        self._learn(now)
        self._began = now

    def rest(self, now: float) -> None:
        self._learn(now)
        self._began = None

    def _learn(self, now: float) -> None:
        if self._began is None:
            return
        seconds = now - self._began
        if self.seconds:
            seconds = (self.seconds + min(seconds, _PAUSE * self.seconds)) / 2
        self.seconds = seconds


def _none(_: Release) -> frozenset[int]:
    return frozenset()


def _nothing(_: Release) -> None:
    return None


class Engine:
    """Answers queries with the release in use when their batch starts.

    queue_limit: queries that may wait. batch_limit: queries in one batch, but for a request that
    has more by itself. deadline_s: from when a query is given, unless it comes with a deadline;
    those are on the clock of time.perf_counter. withdrawn: the rows of a release that are to be in
    no answer now; delta: what stands beside it now. Both are asked once a batch.
    """

    def __init__(
        self,
        live: LiveRelease,
        metrics: Metrics,
        queue_limit: int,
        batch_limit: int,
        deadline_s: float,
        withdrawn: Callable[[Release], frozenset[int]] = _none,
        delta: Callable[[Release], Delta | None] = _nothing,
    ) -> None:
        self._live = live
        self.withdrawn = withdrawn
        self._delta = delta
        self._metrics = metrics
        self._queue_limit = queue_limit
        self._batch_limit = batch_limit
        self._deadline_s = deadline_s
        self._queue: deque[_Waiting] = deque()
        self._depth = 0
        self._running = False
        self._batch: Iterator[None] | None = None
        self._turn_s = _TURN_S
        self._refuses = False
        self._pace = _Pace()

    @property
    def depth(self) -> int:
        """Queries that wait."""
        return self._depth

    @property
    def age_s(self) -> float:
        """Seconds that the first of them has waited."""
        return time.perf_counter() - self._queue[0].since if self._queue else 0.0

    def is_full(self, depth: int) -> bool:
        """Whether a query given when so many wait would be refused, whatever its deadline."""
        if depth >= self._queue_limit or self._wait_s(depth) > _SHARE * self._deadline_s:
            self._refuses = True
            return True
        return False

    def _wait_s(self, depth: int) -> float:
        """At rest nothing is waited for, so that somebody is admitted whatever the pace was."""
        return (depth / self._batch_limit + self._running) * self._pace.seconds

    def admit(self, deadline: float = math.inf) -> None:
        """Raises NotReadyError or OverloadedError if a query given now would be refused."""
        if self._live.release is None:
            self._metrics.rejected_requests["not_ready"].inc()
            raise NotReadyError("release: none is loaded yet; GET /release says why, try again")
        if self._depth >= self._queue_limit:
            self._refuses = True
            self._metrics.rejected_requests["queue_full"].inc()
            raise OverloadedError(
                f"queue: {self._depth} requests wait, as many as may; try again later"
            )
        wait_s = self._wait_s(self._depth)
        if wait_s > _SHARE * min(self._deadline_s, deadline - time.perf_counter()):
            self._refuses = True
            self._metrics.rejected_requests["wait"].inc()
            raise OverloadedError(
                f"queue: the wait is about {wait_s * 1e3:.0f} ms, too long to be sure of an answer "
                "before the deadline; try again later"
            )

    async def answer(
        self, query: Query, is_gone: Callable[[], bool], deadline: float | None = None
    ) -> Served:
        """The answer, once its turn has come. is_gone: whether nobody waits for it any more.

        Raises NotReadyError, OverloadedError or ClientDisconnectedError.
        """
        [outcome] = await self.answer_all([query], is_gone, deadline)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def answer_all(
        self, queries: Sequence[Query], is_gone: Callable[[], bool], deadline: float | None = None
    ) -> list[Outcome]:
        """What becomes of each of the queries of one request, all answered by one release.

        An error is of one query alone, which breaks the retriever. Raises as `answer` does.
        """
        now = time.perf_counter()
        deadline = now + self._deadline_s if deadline is None else deadline
        self.admit(deadline)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(queries, is_gone, loop.create_future(), now, deadline)
        self._queue.append(waiting)
        self._depth += len(queries)
        if not self._running:
            self._running = True
            loop.call_soon(self._run, 0)
        return await waiting.outcomes

    def _run(self, turns: int) -> None:
        """Answer after so many turns of the event loop, and so on until none waits."""
        if turns == 0:
            if self._batch is None and not self._queue:
                self._running = False
                self._pace.rest(time.perf_counter())
                return
            turns = self._go_on()
        asyncio.get_running_loop().call_soon(self._run, turns - 1)

    def _go_on(self) -> int:
        """Answer in this turn, and tell in how many to go on."""
        if self._batch is None:
            self._turn_s = _SHORT_TURN_S if self._refuses else _TURN_S
            self._refuses = False
            self._batch = self._steps(self._next_batch())
        until = time.perf_counter() + self._turn_s
        for _ in self._batch:
            if time.perf_counter() > until:
                return 1
        self._batch = None
        # With a whole batch waiting there is nothing to wait for: one turn writes the answers, and
        # the other refuses who came meanwhile.
        return 2 if self._depth >= self._batch_limit else _TURNS

    def _next_batch(self) -> list[_Waiting]:
        now = time.perf_counter()
        done = now + self._pace.seconds
        batch: list[_Waiting] = []
        size = 0
        while self._queue and (not batch or size + self._next_size <= self._batch_limit):
            waiting = self._queue.popleft()
            self._depth -= len(waiting.queries)
            # The first is tried in any case: else a wrong estimate would never be put right.
            if not self._is_dropped(waiting, now, done if batch else now):
                batch.append(waiting)
                size += len(waiting.queries)
        self._pace.begin(now)
        return batch

    @property
    def _next_size(self) -> int:
        return len(self._queue[0].queries)

    def _is_dropped(self, waiting: _Waiting, now: float, done: float) -> bool:
        """done: about when the batch will be."""
        if waiting.outcomes.done() or waiting.is_gone():
            self._metrics.rejected_requests["client_gone"].inc()
            _fail(waiting, ClientDisconnectedError("client: hung up before its turn"))
            return True
        if done > waiting.deadline:
            self._metrics.rejected_requests["deadline"].inc()
            _fail(
                waiting,
                OverloadedError(
                    f"queue: waited {(now - waiting.since) * 1e3:.0f} ms, too long for an answer "
                    "before the deadline; try again later"
                ),
            )
            return True
        return False

    def _steps(self, batch: Sequence[_Waiting]) -> Iterator[None]:
        """A step for each query, all by the release in use at the first.

        The answers go out together, at the end, so that there is little to do between two steps.
        """
        try:
            if batch:
                yield from self._answer(batch)
        except Exception as error:  # else nobody would ever be answered again
            for waiting in batch:
                _fail(waiting, error)

    def _answer(self, batch: Sequence[_Waiting]) -> Iterator[None]:
        release, start, timings = self._live.release, time.perf_counter(), Timings()
        assert release is not None, "a query was admitted without a release; this is a bug"
        queries = [query for waiting in batch for query in waiting.queries]
        withdrawn, delta = self.withdrawn(release), self._delta(release)
        found: dict[int, Answer | Exception] = {}
        for place, answer in _answers(release, queries, timings, withdrawn, delta):
            found[place] = answer
            yield
        self._observe(len(queries), start - batch[0].since, timings)
        answers = (found[place] for place in range(len(queries)))
        for waiting in batch:
            queue = start - waiting.since
            outcomes: list[Outcome] = [
                answer
                if isinstance(answer, Exception)
                else Served(answer, release, timings, queue, delta)
                for answer in islice(answers, len(waiting.queries))
            ]
            if not waiting.outcomes.done():
                waiting.outcomes.set_result(outcomes)

    def _observe(self, size: int, queue: float, timings: Timings) -> None:
        self._metrics.batch_size.observe(size)
        self._metrics.queue_s.observe(queue)
        self._metrics.encode_s.observe(timings.encode)
        self._metrics.search_s.observe(timings.search)
        self._metrics.merge_s.observe(timings.merge)


def _answers(
    release: Release,
    queries: Sequence[Query],
    timings: Timings,
    withdrawn: frozenset[int],
    delta: Delta | None,
) -> Iterator[tuple[int, Answer | Exception]]:
    """All together, or if that fails one by one, so that one cannot spoil the others."""
    left = set(range(len(queries)))
    try:
        for place, answer in release.retriever.answers(queries, timings, withdrawn, delta):
            left.remove(place)
            yield place, answer
    except Exception as error:
        if len(queries) == 1:
            yield 0, error
            return
    for place in left:
        [(_, outcome)] = _answers(release, [queries[place]], timings, withdrawn, delta)
        yield place, outcome


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.outcomes.done():
        waiting.outcomes.set_exception(error)

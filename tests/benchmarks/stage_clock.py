"""Where the time of a process goes: each function of a list is timed, without what it calls of it.

The functions are replaced where they are looked up, so that what is timed is the code as it is. A
timer costs about half a microsecond, which the stage around it pays: stages add up to the processor
time of the process, and are in proportion, but a request takes longer than without timers.
"""

import functools
import inspect
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

REST = "event loop and sockets"

_ENDPOINT = "service.http.endpoints.recommend"
# As the modules look the functions up.
STAGES = {
    "HTTP parser": ("service.http.load_shedding:SheddingProtocol.data_received",),
    "exchange: context, task, response": (
        "service.http.direct:DirectProtocol._answer",
        "service.http.direct:DirectProtocol._respond",
    ),
    "validation": ("service.http.direct:_validated",),
    "authorization": ("service.auth.authorization:Authorizer.authorize",),
    "endpoint": (f"{_ENDPOINT}:query_of", f"{_ENDPOINT}:read_stored"),
    "queue and batches": (
        "service.serving.batching:Engine.answer",
        "service.serving.batching:Engine._run",
    ),
    "retriever: rows, filters, answers": ("index.retrieval.retriever:Retriever.answers",),
    "encode": ("index.retrieval.retriever:Retriever._encode",),
    "search": (
        "index.ann.ivf:IvfIndex.iter_search",
        "index.ann.flat:FlatIndex.iter_search",
    ),
    "merge": ("index.retrieval.search:merge_query_hits",),
    "answer to JSON": (
        f"{_ENDPOINT}:recommendations",
        "orjson:dumps",
        f"{_ENDPOINT}:_server_timing",
    ),
    "metrics": (
        f"{_ENDPOINT}:_observe",
        "service.serving.batching:Engine._observe",
        "service.telemetry.metrics:Metrics.count_request",
    ),
}


class StageClock:
    """Seconds in each stage: at any time, the one that was entered last."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stages: list[str] = []
        self._since = 0.0
        self._cpu_start = 0.0

    def enter(self, stage: str) -> None:
        now = time.perf_counter()
        if self._stages:
            self.seconds[self._stages[-1]] += now - self._since
        elif not self.seconds:
            self._cpu_start = time.process_time()
        self._stages.append(stage)
        self._since = now

    def leave(self) -> None:
        now = time.perf_counter()
        self.seconds[self._stages.pop()] += now - self._since
        self._since = now

    def totals(self) -> dict[str, float]:
        """Of all stages, and of what the process did besides since the first."""
        spent = time.process_time() - self._cpu_start
        return {**self.seconds, REST: spent - sum(self.seconds.values())}

    def install(self, stages: Mapping[str, Sequence[str]]) -> None:
        """Time functions, given as `module:name` or `module:Class.name`, by their stage."""
        for stage, targets in stages.items():
            for target in targets:
                owner, name = _owner(target)
                setattr(owner, name, self._timed(inspect.getattr_static(owner, name), stage))

    def _timed(self, function: Any, stage: str) -> Callable[..., Any]:
        def steps(*args: Any, **kwargs: Any) -> _Steps:
            return _Steps(function(*args, **kwargs), self, stage)

        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            return await steps(*args, **kwargs)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.enter(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        if inspect.iscoroutinefunction(function):
            return functools.wraps(function)(coroutine)
        return functools.wraps(function)(steps if inspect.isgeneratorfunction(function) else call)


class _Steps(Awaitable[Any], Iterator[Any]):
    """A coroutine or a generator, each of whose steps is timed."""

    def __init__(self, steps: Any, clock: StageClock, stage: str) -> None:
        self._steps, self._clock, self._stage = steps, clock, stage

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # type: ignore[return-value]

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        self._clock.enter(self._stage)
        try:
            return self._steps.send(value)
        finally:
            self._clock.leave()

    def throw(self, *error: Any) -> Any:
        return self._steps.throw(*error)

    def close(self) -> None:
        self._steps.close()


def _owner(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    *classes, name = path.split(".")
    return functools.reduce(getattr, classes, import_module(module)), name

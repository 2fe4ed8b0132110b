"""The steps of a search: one candidate trained a little further. One by one, or side by side.

A step's outcome depends on its candidate and epochs alone, not on where it was taken.
"""

import ctypes
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import torch

from index.retrieval.catalog import Catalog
from training.config import FitConfig
from training.evaluation.protocols import DataSplit
from training.fitting.malloc import keep_freed_memory
from training.fitting.trainer import DivergedError, StepCallback, Trainer

_PR_SET_PDEATHSIG = 1  # Linux: the signal that a process gets when its parent ends


class Step(NamedTuple):
    """Train a candidate, whose checkpoints are in a folder, until so many epochs are done."""

    name: str
    config: FitConfig
    folder: Path
    until: int


@dataclass(frozen=True)
class Outcome:
    """How far a candidate has come.

    epochs, seconds: of training, from its beginning. metrics: on validation, of its best weights.
    complete: False if the time was over before. failure: why it cannot go on.
    """

    epochs: int
    seconds: float
    metrics: dict[str, float]
    complete: bool
    failure: str | None = None


class Steps(Protocol):
    def take(
        self, steps: Sequence[Step], seconds_left: Callable[[], float]
    ) -> Iterator[tuple[Step, Outcome]]:
        """Take the steps in order, and yield each when it ends. None is begun without time left,
        and one that runs out of it ends with its epoch."""
        ...


def take_step(
    step: Step, catalog: Catalog, split: DataSplit, seconds: float, on_step: StepCallback
) -> Outcome:
    step.folder.mkdir(exist_ok=True)
    deadline = time.monotonic() + seconds
    trainer = Trainer(step.config, catalog, split, step.folder)
    state = trainer.state
    try:
        complete = trainer.train(on_step, step.until, deadline)
    except DivergedError as error:
        return Outcome(state.epoch, state.seconds, state.best, False, str(error))
    return Outcome(state.epoch, state.seconds, state.best, complete)


class OneByOne:
    """Steps in this process."""

    def __init__(self, catalog: Catalog, split: DataSplit) -> None:
        self._catalog, self._split = catalog, split

    def take(
        self, steps: Sequence[Step], seconds_left: Callable[[], float]
    ) -> Iterator[tuple[Step, Outcome]]:
        for step in steps:
            seconds = seconds_left()
            if seconds <= 0:
                return
            yield (
                step,
                take_step(step, self._catalog, self._split, seconds, lambda examples, state: None),
            )


class SideBySide:
    """Steps in `count` processes, which end when the block ends, or when this process does."""

    def __init__(self, count: int, catalog: Catalog, split: DataSplit) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        data, threads = (catalog, split), torch.get_num_threads()
        self._processes = []
        self._idle: list[Connection] = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, os.getpid(), threads, data), daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._idle.append(ours)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:  # a checkpoint is whole whenever its writer is killed
            process.kill()
            process.join()

    def take(
        self, steps: Sequence[Step], seconds_left: Callable[[], float]
    ) -> Iterator[tuple[Step, Outcome]]:
        """Raises OSError if a process was killed, and what a step raises."""
        waiting, running = [*steps], dict[Connection, Step]()
        while True:
            while waiting and self._idle and (seconds := seconds_left()) > 0:
                connection = self._idle.pop(0)
                running[connection] = waiting.pop(0)
                with suppress(ConnectionError):  # a process that was killed is noticed below
                    connection.send((running[connection], seconds))
            if not running:
                return
            for ended in wait([*running]):
                connection = next(one for one in running if one is ended)
                outcome = _receive(connection)
                self._idle.append(connection)
                yield running.pop(connection), outcome


def _receive(connection: Connection) -> Outcome:
    try:
        answer = connection.recv()
    except (EOFError, ConnectionError):
        raise OSError(
            "search: a process that trained a candidate was killed, as when memory is short; "
            "repeat the command to go on, with search_minutes = 0 for a fit without a search"
        ) from None
    if isinstance(answer, Exception):
        raise answer
    assert isinstance(answer, Outcome)
    return answer


def _serve(
    connection: Connection, parent: int, threads: int, data: tuple[Catalog, DataSplit]
) -> None:
    """Take the steps that come, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's business
    if (prctl := getattr(ctypes.CDLL(None), "prctl", None)) is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    keep_freed_memory()
    torch.set_num_threads(threads)

    def stop_if_orphaned(examples: int, state: object) -> None:
        if os.getppid() != parent:  # whoever goes on must find the checkpoints to himself
            os._exit(1)

    with suppress(EOFError, ConnectionError):
        while True:
            step, seconds = connection.recv()
            try:
                connection.send(take_step(step, *data, seconds, stop_if_orphaned))
            except Exception as error:
                connection.send(error)


def epochs_until(config: FitConfig, share: float) -> int:
    """The first epochs of a training, at least one."""
    return max(math.ceil(share * config.epochs), 1)

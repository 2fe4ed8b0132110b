"""The release in use: watches `current`, loads the release that it names, swaps one reference."""

import asyncio
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from index.ann.engine import Engine
from index.ann.kernel_choice import AUTO
from index.release.errors import ReleaseError
from index.release.listing import release_folder
from index.release.manifest import CURRENT
from index.release.reading import Release, open_release, read_current
from index.retrieval.query import Query
from service.settings import MAX_K
from service.telemetry.metrics import Metrics

_FIRST_RETRY_S = 2.0
_MAX_RETRY_S = 60.0
# Of the loading thread. At 19 a busy machine would hardly run it, also while it holds the
# interpreter's lock, for which the event loop waits.
_LOADING_NICENESS = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pointer:
    """The content of `current` and when it was written: the same id written again is retried."""

    id: str | None
    written_ns: int


@dataclass(frozen=True)
class LoadFailure:
    """Why the release that `current` names was not loaded; it is not retried before retry_at."""

    pointer: Pointer
    message: str
    failed_at: datetime
    attempts: int
    retry_at: float


class ReleaseLoader:
    """Holds the release in use, or None before the first.

    A request reads `release` once, so that its encoder and its index are of the same release. If a
    new release cannot be loaded, the old one stays in use. clock: monotonic seconds. device: of the
    index, "cpu" or "cuda:<number>". kernel: of its products on the CPU, by name. engine: opens
    indexes that are not in files.
    """

    def __init__(
        self,
        root: Path,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        device: str = "cpu",
        kernel: str = AUTO,
        engine: Engine | None = None,
    ) -> None:
        self._root = root
        self._metrics = metrics
        self._clock = clock
        self._device = device
        self._kernel = kernel
        self._engine = engine
        self._lock = asyncio.Lock()
        self._executor = ThreadPoolExecutor(1, "loader", initializer=_lower_priority)
        self.release: Release | None = None
        self.loaded_at: datetime | None = None
        self.failure: LoadFailure | None = None

    @property
    def absence(self) -> str | None:
        """Why no release is in use, and what to do; None if one is."""
        if self.release is not None:
            return None
        if self.failure is not None:
            return self.failure.message
        if not (self._root / CURRENT).exists():
            return (
                f"{self._root / CURRENT}: no such file, so no release is published; "
                "run: python -m index publish DRAFT"
            )
        return "the release is being loaded; try again in a moment"

    async def watch(self, interval_s: float) -> None:
        """Load each release that `current` names, for ever."""
        while True:
            with suppress(ReleaseError):  # logged, and kept in `failure`
                await self.refresh()
            await asyncio.sleep(interval_s)

    async def refresh(self, now: bool = False) -> bool:
        """Load the release that `current` names; whether another one is in use now.

        A release that failed is retried after a delay, or at once if `now`, or if `current` has
        been written since. Raises ReleaseError if loading fails; the release in use stays.
        """
        async with self._lock:
            pointer, unreadable = await asyncio.to_thread(_read_pointer, self._root)
            if unreadable is None and pointer.id == (self.release and self.release.id):
                self._clear_failure()
                return False
            if not (now or self._is_due(pointer)):
                return False
            try:
                if unreadable is not None:
                    raise unreadable
                await self._load(pointer)
            except ReleaseError as error:
                self._record_failure(pointer, error)
                raise
        return True

    async def open(self, release_id: str) -> Release:
        """Another release, verified and warmed up, which is not put into use.

        Raises ReleaseError if it cannot be opened.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._executor,
            copy_context().run,  # for the tenant in the log
            _open_and_warm_up,
            release_folder(self._root, release_id),
            self._device,
            self._kernel,
            self._engine,
        )

    async def _load(self, pointer: Pointer) -> None:
        if pointer.id is None:
            raise ReleaseError(f"{self._root / CURRENT}: is gone; publish or roll back")
        start = self._clock()
        release = await self.open(pointer.id)
        if self.release is not None:
            # The files that workers share keep a label for ever, so it is set to 0 as well.
            self._metrics.release.labels(self.release.id).set(0)
            self._metrics.release.remove(self.release.id)
            self._metrics.kernel.labels(self.release.search.kernel).set(0)
        self.release = release
        self.loaded_at = datetime.now(UTC)
        self._metrics.release.labels(release.id).set(1)
        self._metrics.kernel.labels(release.search.kernel).set(1)
        self._metrics.release_created.set(release.manifest.created.timestamp())
        self._metrics.release_loaded.set(self.loaded_at.timestamp())
        self._metrics.reloads["loaded"].inc()
        self._clear_failure()
        log.info(
            "release loaded",
            extra={
                "release": release.id,
                "items": len(release.retriever.catalog),
                **release.search.log_fields(),
                "seconds": round(self._clock() - start, 3),
            },
        )

    def _is_due(self, pointer: Pointer) -> bool:
        failure = self.failure
        return failure is None or failure.pointer != pointer or self._clock() >= failure.retry_at

    def _clear_failure(self) -> None:
        self.failure = None
        self._metrics.reload_failing.set(0)

    def _record_failure(self, pointer: Pointer, error: ReleaseError) -> None:
        last = self.failure
        attempts = last.attempts + 1 if last and last.pointer == pointer else 1
        wait_s = min(_FIRST_RETRY_S * 2 ** (attempts - 1), _MAX_RETRY_S)
        self.failure = LoadFailure(
            pointer, str(error), datetime.now(UTC), attempts, self._clock() + wait_s
        )
        self._metrics.reloads["failed"].inc()
        self._metrics.reload_failures.labels(error.stage).inc()
        self._metrics.reload_failing.set(1)
        log.error(
            "release refused",
            extra={
                "release": pointer.id,
                "in_use": self.release and self.release.id,
                "error": str(error),
                "retry_in_s": wait_s,
            },
        )


def _read_pointer(root: Path) -> tuple[Pointer, ReleaseError | None]:
    """The content of `current`, or why it cannot be read."""
    try:
        written_ns = (root / CURRENT).stat().st_mtime_ns
    except OSError:
        written_ns = 0
    try:
        return Pointer(read_current(root), written_ns), None
    except ReleaseError as error:
        return Pointer(None, written_ns), error


def _lower_priority() -> None:
    """Of this thread, so that it runs when the event loop is idle."""
    if sys.platform == "linux":  # where each thread has its own priority
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOADING_NICENESS)


def _open_and_warm_up(folder: Path, device: str, kernel: str, engine: Engine | None) -> Release:
    """Verify, load, and warm up with queries for 1 item and for the most items allowed.

    So the first requests neither wait nor fail.
    """
    try:
        release = open_release(folder, device, kernel, engine)
        most_popular = release.retriever.catalog.id(1)
        for k in (1, MAX_K):
            release.retriever.recommend([Query([most_popular], k)])
    except ReleaseError:
        raise
    except Exception as error:
        log.exception("release cannot be opened", extra={"release": folder.name})
        refusal = ReleaseError(f"{folder.name}: cannot be opened ({type(error).__name__})")
        refusal.stage = "warm-up"
        raise refusal from error
    # Else the garbage collector would traverse the release now and then, and block every request
    # for a tenth of a second. It skips frozen objects; a release has no cycles to collect.
    gc.collect()
    gc.freeze()
    return release

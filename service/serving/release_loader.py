"""The release in use: watch `current`, load what it names aside, swap one reference."""

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
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from index.release.errors import ReleaseError
from index.release.manifest import CURRENT, RELEASES
from index.release.reading import Release, open_release, read_current
from index.retrieval.retriever import Query
from service.settings import MAX_K
from service.telemetry.metrics import Metrics

_FIRST_RETRY_S = 2.0
_LAST_RETRY_S = 60.0
# Of the thread that loads. At 19 a busy machine would hardly let it run, also while it holds the
# interpreter's lock, for which the answers wait.
_LOADING_NICE = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pointer:
    """What `current` holds, and when it was written: a name written again is a new try."""

    id: str | None
    written_ns: int


@dataclass(frozen=True)
class Failure:
    """What `current` names could not be loaded; it is not tried again before retry_at."""

    pointer: Pointer
    message: str
    failed_at: datetime
    attempts: int
    retry_at: float


class LiveRelease:
    """Holds the release in use, or None before the first.

    A request reads `release` once, so an old encoder never meets a new index. Whatever goes wrong
    with a new release leaves the old one in use. clock: seconds that never go back. device: what
    its index is searched on, "cpu" or "cuda:<number>".
    """

    def __init__(
        self,
        root: Path,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        device: str = "cpu",
    ) -> None:
        self._root = root
        self._metrics = metrics
        self._clock = clock
        self._device = device
        self._loading = asyncio.Lock()
        self._loader = ThreadPoolExecutor(1, "loader", initializer=_yield_to_answers)
        self.release: Release | None = None
        self.loaded_at: datetime | None = None
        self.failure: Failure | None = None

    async def watch(self, interval_s: float) -> None:
        """Load each release that `current` comes to name, for ever."""
        while True:
            with suppress(ReleaseError):  # logged, and kept in `failure`
                await self.refresh()
            await asyncio.sleep(interval_s)

    async def refresh(self, now: bool = False) -> bool:
        """Load what `current` names; whether that is another release than before.

        A name that failed waits its time, unless `now`, or `current` has been written since.
        Raises ReleaseError if loading fails; the release in use stays.
        """
        async with self._loading:
            pointer, unreadable = await asyncio.to_thread(_read_pointer, self._root)
            if unreadable is None and pointer.id == (self.release and self.release.id):
                self._settle()
                return False
            if not (now or self._is_due(pointer)):
                return False
            try:
                if unreadable is not None:
                    raise unreadable
                await self._load(pointer)
            except ReleaseError as error:
                self._failed(pointer, error)
                raise
        return True

    async def _load(self, pointer: Pointer) -> None:
        if pointer.id is None:
            raise ReleaseError(f"{self._root / CURRENT}: is gone; publish or roll back")
        start = self._clock()
        folder = self._root / RELEASES / pointer.id
        release = await asyncio.get_running_loop().run_in_executor(
            self._loader, _open, folder, self._device
        )
        if self.release is not None:
            # Workers tell a label for ever, so it has to say that it is no more, too.
            self._metrics.release.labels(self.release.id).set(0)
            self._metrics.release.remove(self.release.id)
        self.release = release
        self.loaded_at = datetime.now(UTC)
        self._metrics.release.labels(release.id).set(1)
        self._metrics.release_created.set(release.manifest.created.timestamp())
        self._metrics.release_loaded.set(self.loaded_at.timestamp())
        self._metrics.reloads["loaded"].inc()
        self._settle()
        log.info(
            "release loaded",
            extra={
                "release": release.id,
                "items": len(release.retriever.catalog),
                "seconds": round(self._clock() - start, 3),
            },
        )

    def _is_due(self, pointer: Pointer) -> bool:
        failure = self.failure
        return failure is None or failure.pointer != pointer or self._clock() >= failure.retry_at

    def _settle(self) -> None:
        self.failure = None
        self._metrics.reload_failing.set(0)

    def _failed(self, pointer: Pointer, error: ReleaseError) -> None:
        last = self.failure
        attempts = last.attempts + 1 if last and last.pointer == pointer else 1
        wait_s = min(_FIRST_RETRY_S * 2 ** (attempts - 1), _LAST_RETRY_S)
        self.failure = Failure(
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
    """What `current` holds, or why that cannot be told."""
    try:
        written_ns = (root / CURRENT).stat().st_mtime_ns
    except OSError:
        written_ns = 0
    try:
        return Pointer(read_current(root), written_ns), None
    except ReleaseError as error:
        return Pointer(None, written_ns), error


def _yield_to_answers() -> None:
    """Have this thread run when the one that answers does not want to."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOADING_NICE)


def _open(folder: Path, device: str) -> Release:
    """Verify, load and answer, also as deep as may be asked for.

    What the first requests would wait for or fail on is done.
    """
    try:
        release = open_release(folder, device)
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
    # The garbage collector would look at all that is loaded now and again, and stop every request
    # for a tenth of a second. What is frozen it leaves alone; a release has no cycles to collect.
    gc.collect()
    gc.freeze()
    return release

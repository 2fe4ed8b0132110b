"""The canary in use: follows the file `canary`, loads its release, decides who is answered by it.

A canary that cannot be loaded is reported, and the live release answers everyone.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from index.release.canary_file import CanaryRelease, read_canary
from index.release.errors import ReleaseError
from index.release.reading import Release
from service.serving.release_loader import ReleaseLoader
from service.telemetry.canary_metrics import CanaryMetrics, Variant

_RETRY_S = 60.0
_HASH_BYTES = 8
_HASH_RANGE = 1 << 8 * _HASH_BYTES

log = logging.getLogger(__name__)


def is_in_share(user_id: str, release_id: str, share: float) -> bool:
    """Whether the user is among the canary's: always the same ones, others for each release."""
    text = f"{release_id}\0{user_id}".encode()
    digest = hashlib.blake2b(text, digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest) / _HASH_RANGE < share


@dataclass(frozen=True)
class LoadedCanary:
    """A canary whose release is open."""

    settings: CanaryRelease
    release: Release
    loaded_at: datetime

    def variant_of(self, user_id: str | None) -> Variant:
        """Who answers the user. Without a user it is the live release, as it is in shadow mode."""
        return "canary" if not self.settings.shadow and self.has(user_id) else "current"

    def has(self, user_id: str | None) -> bool:
        """Whether the user is of the share."""
        settings = self.settings
        return user_id is not None and is_in_share(user_id, settings.release, settings.share)


@dataclass(frozen=True)
class CanaryFailure:
    """Why the canary was not loaded. release: its id, if the file can be read."""

    release: str | None
    message: str
    failed_at: datetime
    retry_at: float


class CanaryLoader:
    """Holds the canary in use, or None. clock: monotonic seconds.

    Its release is opened by `live`, beside the release in use: for as long as it runs, a process
    holds both.
    """

    def __init__(
        self,
        root: Path,
        live: ReleaseLoader,
        metrics: CanaryMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._live = live
        self._clock = clock
        self._lock = asyncio.Lock()
        self._wanted: CanaryRelease | None = None
        self.metrics = metrics
        self._aborted: str | None = None  # the run
        self.loaded: LoadedCanary | None = None
        self.failure: CanaryFailure | None = None

    @property
    def release(self) -> Release | None:
        """The canary's release, or None without one."""
        return self.loaded.release if self.loaded else None

    @property
    def settings(self) -> CanaryRelease | None:
        """What the file says, also of a canary that is not loaded; None without one."""
        return self._wanted

    @property
    def run(self) -> str | None:
        """The name of the run whose answers are compared; None without a canary that is shown."""
        wanted = self._wanted
        return None if wanted is None or wanted.shadow else f"{wanted.release}@{wanted.started:.0f}"

    @property
    def aborted(self) -> bool:
        """Whether the run was aborted as it was worse; its file stays until an operator acts."""
        return self._aborted is not None and self._aborted == self.run

    def abort(self, run: str) -> None:
        """Let the live release answer everyone, for the rest of the run."""
        if run == self.run:
            self._aborted = run
            self.metrics.aborted.set(1)
            self._use(None)

    def variants_of(self, user_ids: Sequence[str | None]) -> list[Variant] | None:
        """Who answers each user; None if there is no canary."""
        if self.loaded is None:
            return None
        return [self.loaded.variant_of(user_id) for user_id in user_ids]

    async def refresh(self) -> None:
        """Load the canary that the file names, once a live release is in use; or end it."""
        async with self._lock:
            if self._live.release is not None:
                await self._refresh()

    async def _refresh(self) -> None:
        try:
            try:
                wanted = await asyncio.to_thread(read_canary, self._root)
            except ReleaseError:
                self._wanted = None  # so that the file is followed once it can be read
                raise
            if wanted == self._wanted and not self._is_due():
                return
            self._wanted = wanted
            self.metrics.aborted.set(self.aborted)
            loaded = None if wanted is None or self.aborted else await self._load(wanted)
        except ReleaseError as error:
            self._fail(str(error))
        else:
            self._use(loaded)

    async def _load(self, wanted: CanaryRelease) -> LoadedCanary:
        release = self.release
        if release is None or release.id != wanted.release:
            release = await self._live.open(wanted.release)
        return LoadedCanary(wanted, release, datetime.now(UTC))

    def _is_due(self) -> bool:
        return self.failure is not None and self._clock() >= self.failure.retry_at

    def _use(self, loaded: LoadedCanary | None) -> None:
        if loaded is not None or self.loaded is not None:
            log.info("canary loaded" if loaded else "canary ended", extra=_fields(loaded))
        self.loaded, self.failure = loaded, None
        self.metrics.share.set(loaded.settings.share if loaded else 0)
        self.metrics.failing.set(0)

    def _fail(self, message: str) -> None:
        wanted = self._wanted.release if self._wanted else None
        if self.failure is None or self.failure.message != message:
            log.error("canary refused", extra={"release": wanted, "error": message})
        self.loaded = None
        self.failure = CanaryFailure(wanted, message, datetime.now(UTC), self._clock() + _RETRY_S)
        self.metrics.share.set(0)
        self.metrics.failing.set(1)


def _fields(loaded: LoadedCanary | None) -> dict[str, object]:
    return loaded.settings.model_dump() if loaded else {}

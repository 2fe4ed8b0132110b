"""The folder of a fit's checkpoints, beside the drafts, from which a killed fit continues."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from index.release.lock import exclusive_lock
from training.config import ConfigError
from training.fitting.trainer import CHECKPOINT

KEPT_DAYS = 7  # after its last change, a fit that was killed can be continued so long
_DAY_S = 86_400.0
_LOCK = "lock"


class _RunningError(Exception):
    """The fit of a folder is running."""


@contextmanager
def working_folder(folder: Path) -> Iterator[Path]:
    """A locked folder for the checkpoints of a run; it is removed when the run is complete.

    Removes those of other fits that were killed and not continued. Raises ConfigError if this very
    fit is running.
    """
    folder.mkdir(parents=True, exist_ok=True)
    locked = ConfigError(
        f"{folder.name}: this very fit is running; wait for it, or change the settings"
    )
    with exclusive_lock(folder / _LOCK, locked):
        remove_abandoned_fits(folder.parent)
        try:
            yield folder
        except Exception:
            # Without a checkpoint there is nothing to continue, so nothing is kept.
            if not any(folder.glob(f"*/{CHECKPOINT}")):
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def remove_abandoned_fits(drafts: Path) -> None:
    """Remove the folders of fits that were killed, and not continued for KEPT_DAYS."""
    for folder in drafts.glob(".fit-*"):
        with suppress(OSError, _RunningError):
            changes = (path.stat().st_mtime for path in (folder, *folder.rglob("*")))
            if max(changes) > time.time() - KEPT_DAYS * _DAY_S:
                continue
            with exclusive_lock(folder / _LOCK, _RunningError()):
                shutil.rmtree(folder)

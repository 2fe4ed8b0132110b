"""The lock of a root: one process at a time changes it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index.release.errors import ReleaseError
from index.release.listing import check_root
from index.release.lock import exclusive_lock

_LOCK = ".lock"


@contextmanager
def locked_root(root: Path) -> Iterator[None]:
    """Hold the root's lock, so that one process at a time changes the root.

    Raises ReleaseError if another process holds it, and for file system errors in the block.
    """
    check_root(root)
    refusal = ReleaseError(f"{root}: another command is changing it; try again when it has ended")
    try:
        with exclusive_lock(root / _LOCK, refusal):
            yield
    except OSError as error:
        raise ReleaseError(
            f"{root}: cannot be changed ({error}); no partial file is left; fix that and try again"
        ) from error

"""The file `canary` of a root: the release that answers a share of the users beside the live one.

Not to be confused with canary queries, which test a release when it is opened.
"""

from pathlib import Path

from pydantic import Field, ValidationError

from index.ann.spec import Record
from index.release.atomic_io import fsync, replace_text
from index.release.errors import ReleaseError
from index.release.manifest import ReleaseId
from index.release.reading import read_current

CANARY = "canary"


class CanaryRelease(Record):
    """release: its id. share: of the users. shadow: it is asked, and its answers are not shown.

    started: Unix seconds; a canary that is started again is observed anew.
    """

    release: ReleaseId
    share: float = Field(gt=0, le=1)
    shadow: bool = False
    started: float = 0.0


def read_canary(root: Path) -> CanaryRelease | None:
    """The canary; None if there is none, or it is live by now.

    Raises ReleaseError if the file cannot be read.
    """
    canary = _read(root)
    return None if canary and canary.release == read_current(root) else canary


def canary_release_id(root: Path) -> str | None:
    """The id of the canary; None if there is none or it cannot be read."""
    try:
        canary = read_canary(root)
    except ReleaseError:
        return None
    return canary.release if canary else None


def write_canary(root: Path, canary: CanaryRelease) -> None:
    """Let the root have this canary. A crash leaves the old file or the new one, whole."""
    replace_text(root / CANARY, canary.model_dump_json() + "\n")


def remove_canary(root: Path) -> None:
    """Let the root have no canary. Raises OSError if the file cannot be removed."""
    (root / CANARY).unlink(missing_ok=True)
    fsync(root)


def remove_canary_of(root: Path, release_id: str | None) -> None:
    """Let the root have no canary if this release is in its file."""
    try:
        canary = _read(root)
    except ReleaseError:
        return
    if canary is not None and canary.release == release_id:
        remove_canary(root)


def _read(root: Path) -> CanaryRelease | None:
    try:
        return CanaryRelease.model_validate_json((root / CANARY).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ReleaseError(
            f"{root / CANARY}: cannot be read ({type(error).__name__}); "
            "run: python -m index abort, and canary again"
        ) from error

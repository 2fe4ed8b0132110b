"""Start a canary, promote it to the live release, or abort it; see index.release.canary_file.

Every change holds the root's lock, and its last step replaces or removes one file: a crash at any
step leaves the state before it or after it.
"""

import time
from pathlib import Path

from index.ann.milvus_engine import MilvusEngine
from index.release.canary_file import (
    CANARY,
    CanaryRelease,
    read_canary,
    remove_canary,
    write_canary,
)
from index.release.errors import GateRefusal, ReleaseError
from index.release.gate import DEFAULT_GATE, Gate
from index.release.installation import install, make_live, root_of
from index.release.listing import release_folder
from index.release.manifest import Manifest
from index.release.pruning import KEEP, check_keep, remove_old_releases
from index.release.reading import open_release, read_current
from index.release.root_lock import locked_root


def publish_canary(
    draft: Path,
    share: float,
    shadow: bool = False,
    gate: Gate = DEFAULT_GATE,
    force: bool = False,
    keep: int = KEEP,
    against: Manifest | None = None,
    engine: MilvusEngine | None = None,
) -> Path:
    """Make the draft a release, as `publish` does, and the canary instead of the live one.

    share: of the users, above 0 and at most 1. shadow: ask it without showing its answers.
    Raises as `publish` does, and ReleaseError if nothing is live or the release itself is.
    """
    check_keep(keep)
    root = root_of(draft)
    with locked_root(root):
        _live(root)
        try:
            folder, _ = install(draft, gate, force, against, engine)
        except GateRefusal as refusal:
            command = canary_command(draft, share, shadow)
            raise GateRefusal(refusal.draft, refusal.failures, command) from None
        _start(root, folder.name, share, shadow)
        remove_old_releases(root, keep, engine)
    return folder


def canary_command(draft: Path, share: float, shadow: bool = False) -> str:
    """That of `python -m index` which makes the draft the canary."""
    return f"canary {draft} --share {share}{' --shadow' if shadow else ''}"


def start_canary(
    root: Path,
    release_id: str,
    share: float,
    shadow: bool = False,
    engine: MilvusEngine | None = None,
) -> Path:
    """Make a release of the root the canary, instead of an earlier one. Returns its folder.

    Raises ReleaseError if it cannot be opened, it is live, or nothing is.
    """
    with locked_root(root):
        folder = release_folder(root, release_id)
        open_release(folder, engine=engine)
        _start(root, release_id, share, shadow)
    return folder


def promote(root: Path, engine: MilvusEngine | None = None) -> Path:
    """Make the canary the live release. Returns its folder.

    `current` names it before the file `canary` is removed: after a crash in between it is live.
    Raises ReleaseError if there is no canary or it cannot be opened.
    """
    with locked_root(root):
        canary = _canary(root)
        folder = release_folder(root, canary.release)
        make_live(root, folder, open_release(folder, engine=engine), engine)
    return folder


def abort(root: Path) -> str | None:
    """End the canary, whose release stays; its id, or None if its file was damaged or left over.

    Raises ReleaseError if there is none.
    """
    with locked_root(root):
        try:
            aborted = _canary(root).release
        except ReleaseError:
            if not (root / CANARY).exists():
                raise
            aborted = None
        remove_canary(root)
    return aborted


def _canary(root: Path) -> CanaryRelease:
    canary = read_canary(root)
    if canary is None:
        raise ReleaseError(f"{root}: no canary; run: python -m index canary ID --share 0.1")
    return canary


def _live(root: Path) -> str:
    live = read_current(root)
    if live is None:
        raise ReleaseError(
            f"{root}: no live release to compare a canary with; run: python -m index publish DRAFT"
        )
    return live


def _start(root: Path, release_id: str, share: float, shadow: bool) -> None:
    if _live(root) == release_id:
        raise ReleaseError(f"{release_id}: is live, so it cannot be the canary; name another")
    write_canary(
        root, CanaryRelease(release=release_id, share=share, shadow=shadow, started=time.time())
    )

"""Drafts become releases: gate, copy, rename, move `current`; roll back, list, verify, prune.

Every change is made under the root's lock, in an order that a crash may cut anywhere: `current`
names the old release whole or the new one whole. What a crash leaves behind has a name that starts
with a dot, is listed nowhere, and is removed by the next publish or prune.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index.release.atomic_io import discard, fsync, replace_text
from index.release.errors import GateRefusal, ReleaseError
from index.release.gate import DEFAULT_GATE, Gate
from index.release.listing import check_root, list_releases, live_id, problem_of, release_folder
from index.release.lock import deletable, exclusive_lock
from index.release.manifest import (
    CURRENT,
    DRAFTS,
    INTERESTS,
    RELEASES,
    Manifest,
    read_manifest,
    write_manifest,
)
from index.release.reading import open_release, read_current, verify_files

KEEP = 5
_LOCK = ".lock"


def publish(
    draft: Path,
    gate: Gate = DEFAULT_GATE,
    force: bool = False,
    keep: int = KEEP,
    against: Manifest | None = None,
) -> Path:
    """Make <root>/drafts/<id> the live release <root>/releases/<id>, and prune to `keep` releases.

    The draft stays. A draft that was published before only becomes current again. `force` overrides
    the gate, never verification. against: the live release's manifest with metrics that were
    measured anew, on what the draft's were measured on.
    Raises GateRefusal, or ReleaseError for a draft that cannot be opened, another live release than
    it was compared with, an id already published with other content, a publisher at work, or a full
    disk.
    """
    draft = draft.absolute()  # links stay: the root is the folder that this names
    if draft.parent.name != DRAFTS:
        raise ReleaseError(f"{draft}: not a draft; name a folder <root>/{DRAFTS}/<id>")
    _check_keep(keep)
    root = draft.parent.parent
    with _locked(root):
        manifest = open_release(draft).manifest
        failures = [] if force else _gate_failures(root, gate, manifest, against)
        if failures:
            raise GateRefusal(manifest.id, failures)
        _sweep(root)
        folder = root / RELEASES / manifest.id
        _install(draft, folder, _as_published(folder, manifest, live_id(root)))
        replace_text(root / CURRENT, f"{manifest.id}\n")
        _prune(root, keep)
    return folder


def rollback(root: Path, to: str | None = None) -> Path:
    """Make an earlier release current: `to`, else the live one's parent, else the one before it.

    Raises ReleaseError if there is none, or it cannot be opened; then `current` stays.
    """
    with _locked(root):
        folder = release_folder(root, _previous(root) if to is None else to)
        release = open_release(folder)
        replace_text(root / CURRENT, f"{release.id}\n")
    return folder


def prune(root: Path, keep: int = KEEP) -> list[str]:
    """Delete all but the newest `keep` releases, and return the ids of those deleted.

    The current one, its parent (the way back) and any that a process has open stay in any case.
    """
    _check_keep(keep)
    with _locked(root):
        _sweep(root)
        return _prune(root, keep)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Let one process at a time change the root; the kernel takes the lock from a dead one.

    Raises ReleaseError if another has it, and for whatever the file system refuses inside.
    """
    check_root(root)
    held = ReleaseError(
        f"{root}: another publish, rollback or prune is at work; try again when it has ended"
    )
    try:
        with exclusive_lock(root / _LOCK, held):
            yield
    except OSError as error:
        raise ReleaseError(
            f"{root}: cannot be changed ({error}); nothing half-written is left, so mend that and "
            "try again"
        ) from error


def _gate_failures(root: Path, gate: Gate, draft: Manifest, against: Manifest | None) -> list[str]:
    try:
        live = read_current(root)
        if against is None:
            return gate.failures(draft, read_manifest(release_folder(root, live)) if live else None)
    except ReleaseError as error:
        return [f"the live release cannot be compared with ({error})"]
    if live != against.id:
        raise ReleaseError(
            f"{draft.id}: was compared with {against.id}, and {live} is live now; compare again"
        )
    return gate.failures(draft, against)


def _as_published(folder: Path, draft: Manifest, live: str | None) -> Manifest:
    """The manifest of a draft's release: without what only building needs, and with its parent.

    Raises ReleaseError if the folder holds a release of other content.
    """
    published = draft.model_copy(
        update={
            "files": {name: file for name, file in draft.files.items() if name != INTERESTS},
            "parent": live if live != draft.id else None,
        }
    )
    if not folder.exists():
        return published
    existing = read_manifest(folder)
    published = published.model_copy(update={"parent": existing.parent})
    if existing != published:
        raise ReleaseError(
            f"{draft.id}: published before with other content, and a release never changes; "
            "fit again for a draft of its own"
        )
    return published


def _install(draft: Path, folder: Path, manifest: Manifest) -> None:
    """Put a release in its place unless it is there and sound."""
    if folder.exists() and problem_of(folder) is None:
        fsync(folder.parent)  # which a publish that died may not have come to
        return
    aside = folder.with_name(f".{folder.name}.new")
    try:
        aside.mkdir(parents=True)
        for name in manifest.files:
            shutil.copyfile(draft / name, aside / name)
        verify_files(aside, manifest)
        write_manifest(aside, manifest)
        if folder.exists():
            discard(_hide(folder))
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    fsync(folder.parent)


def _hide(folder: Path) -> Path:
    """Take a release away, whole, under a name that is nobody's, for the next sweep if need be."""
    hidden = folder.with_name(f".{folder.name}.{time.time_ns()}")
    folder.rename(hidden)
    return hidden


def _sweep(root: Path) -> None:
    """Remove what publishers that died have left; under the lock, none is at work on it."""
    for left in (*(root / RELEASES).glob(".*"), *root.glob(f".{CURRENT}.*")):
        discard(left)


def _prune(root: Path, keep: int) -> list[str]:
    live = read_current(root)
    needed = {live, read_manifest(release_folder(root, live)).parent} if live else set()
    ids = [release.id for release in list_releases(root) if release.manifest is not None]
    return [
        name for name in ids[:-keep] if name not in needed and _delete(release_folder(root, name))
    ]


def _delete(folder: Path) -> bool:
    """Whether it could be deleted, as no process has it open."""
    with deletable(folder) as free:
        if not free:
            return False
        hidden = _hide(folder)
    discard(hidden)  # of which nothing is open any more, also by this process: NFS minds
    return True


def _previous(root: Path) -> str:
    known = {release.id: release.manifest for release in list_releases(root) if release.manifest}
    live = read_current(root)
    if live is None:
        raise ReleaseError(f"{root}: nothing is published, so there is nothing to roll back from")
    manifest = known.pop(live, None)
    if manifest is None:
        older = list(known)
    elif manifest.parent in known:
        return manifest.parent
    else:
        older = [name for name, other in known.items() if other.created <= manifest.created]
    if not older:
        raise ReleaseError(f"{root}: no release is older than the live {live}; publish another")
    return older[-1]


def _check_keep(keep: int) -> None:
    if keep < 1:
        raise ValueError(f"keep: given {keep}, 1 or more is allowed")

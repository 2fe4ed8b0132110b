"""Publish a draft as the live release, roll back to an earlier one, prune old ones.

Every change holds the root's lock. A crash at any step leaves `current` naming a whole release, the
old or the new one. Leftovers of a crash have names that start with a dot: no list shows them, and
the next publish or prune removes them.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from index.ann.milvus_engine import MilvusEngine
from index.release.atomic_io import discard, fsync, replace_text
from index.release.collections import collection_of, drop_unused, make_collection_current
from index.release.errors import GateRefusal, ReleaseError
from index.release.gate import DEFAULT_GATE, Gate
from index.release.listing import (
    check_root,
    find_problem,
    list_releases,
    live_release_id,
    release_folder,
)
from index.release.lock import deletion_lock, exclusive_lock
from index.release.manifest import (
    CURRENT,
    DRAFTS,
    FORMAT,
    INDEX,
    INTERESTS,
    RELEASES,
    Manifest,
    read_manifest,
    write_manifest,
)
from index.release.reading import open_release, read_current
from index.release.verification import verify_files

KEEP = 5
_LOCK = ".lock"
_MAX_ID = 64  # characters


def publish(
    draft: Path,
    gate: Gate = DEFAULT_GATE,
    force: bool = False,
    keep: int = KEEP,
    against: Manifest | None = None,
    engine: MilvusEngine | None = None,
) -> Path:
    """Make <root>/drafts/<id> the live release <root>/releases/<id>, and prune to `keep` releases.

    The draft stays. A draft that was published before only becomes current again; if it was built
    again since, it becomes a release of its own, <id>-2. `force` overrides
    the gate, but never verification. against: the live release's manifest with metrics measured
    again, on the same users as the draft's metrics. engine: Milvus, if an index is there; its alias
    names the collection before `current` names the release.
    Raises GateRefusal; ReleaseError if the draft cannot be opened, another release is live than the
    one it was compared with, its id was published with other content, another publisher runs, or
    the disk is full.
    """
    draft = draft.absolute()  # links are not resolved: the path itself names the root
    if draft.parent.name != DRAFTS:
        raise ReleaseError(f"{draft}: not a draft; name a folder <root>/{DRAFTS}/<id>")
    _check_keep(keep)
    root = draft.parent.parent
    with _locked(root):
        release = open_release(draft, engine=engine)
        manifest = release.manifest
        failures = [] if force else _gate_failures(root, gate, manifest, against)
        if failures:
            raise GateRefusal(manifest.id, failures)
        _remove_leftovers(root)
        published = _as_published(root / RELEASES, manifest, live_release_id(root))
        folder = root / RELEASES / published.id
        _install(draft, folder, published, engine)
        make_collection_current(folder, release, engine)
        replace_text(root / CURRENT, f"{published.id}\n")
        _prune(root, keep, engine)
    return folder


def rollback(root: Path, to: str | None = None, engine: MilvusEngine | None = None) -> Path:
    """Make an earlier release current: `to`, else the live one's parent, else the one before it.

    Raises ReleaseError, and leaves `current` alone, if there is none or it cannot be opened.
    """
    with _locked(root):
        folder = release_folder(root, _previous(root) if to is None else to)
        release = open_release(folder, engine=engine)
        make_collection_current(folder, release, engine)
        replace_text(root / CURRENT, f"{release.id}\n")
    return folder


def prune(root: Path, keep: int = KEEP, engine: MilvusEngine | None = None) -> list[str]:
    """Delete all but the newest `keep` releases, and return the ids of those deleted.

    The current one, its parent (for a rollback) and any that a process has open always stay; so
    do those in Milvus, without an engine to drop their collections.
    """
    _check_keep(keep)
    with _locked(root):
        _remove_leftovers(root)
        return _prune(root, keep, engine)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the root's lock, so that one process at a time changes the root.

    Raises ReleaseError if another process holds it, and for file system errors in the block.
    """
    check_root(root)
    refusal = ReleaseError(
        f"{root}: another publish, rollback or prune is running; try again when it has ended"
    )
    try:
        with exclusive_lock(root / _LOCK, refusal):
            yield
    except OSError as error:
        raise ReleaseError(
            f"{root}: cannot be changed ({error}); no partial file is left; fix that and try again"
        ) from error


def _gate_failures(root: Path, gate: Gate, draft: Manifest, against: Manifest | None) -> list[str]:
    try:
        live = read_current(root)
        if against is None:
            return gate.failures(draft, read_manifest(release_folder(root, live)) if live else None)
    except ReleaseError as error:
        return [f"the live release cannot be read for a comparison ({error})"]
    if live != against.id:
        raise ReleaseError(
            f"{draft.id}: was compared with {against.id}, but {live} is live now; compare again"
        )
    return gate.failures(draft, against, same_cases=True)


def _as_published(releases: Path, draft: Manifest, live: str | None) -> Manifest:
    """The manifest of the draft's release: without files that only `build` needs, with a parent.

    It has the draft's id, or <id>-2, <id>-3 if the draft was built again after it was published.
    Raises ReleaseError if the id was published with other content than another index.
    """
    kept = {name: file for name, file in draft.files.items() if name != INTERESTS}
    for number in count(1):
        suffix = f"-{number}" if number > 1 else ""
        name = draft.id[: _MAX_ID - len(suffix)] + suffix
        parent = live if live != name else None
        published = draft.model_copy(update={"id": name, "files": kept, "parent": parent})
        if not (releases / name).exists():
            return published
        existing = read_manifest(releases / name)
        published = published.model_copy(update={"parent": existing.parent})
        if existing == published:
            return published
        if _without_index(existing) != _without_index(published):
            raise ReleaseError(
                f"{name}: published before with other content, and a release never changes; "
                "fit again to get a new id"
            )
    raise AssertionError("count() does not end")


def _without_index(manifest: Manifest) -> Manifest:
    """All but what `build` has made."""
    canaries = tuple(canary.model_copy(update={"items": ()}) for canary in manifest.canaries)
    files = {name: file for name, file in manifest.files.items() if name != INDEX}
    changes = {"format": FORMAT, "index": None, "canaries": canaries, "files": files}
    return manifest.model_copy(update=changes)


def _install(draft: Path, folder: Path, manifest: Manifest, engine: MilvusEngine | None) -> None:
    """Copy the draft to the release's folder, unless a sound release is there."""
    if folder.exists() and find_problem(folder, engine) is None:
        fsync(folder.parent)  # a publisher that died may have ended before this
        return
    temporary = folder.with_name(f".{folder.name}.new")
    try:
        temporary.mkdir(parents=True)
        for name in manifest.files:
            shutil.copyfile(draft / name, temporary / name)
        verify_files(temporary, manifest)
        write_manifest(temporary, manifest)
        if folder.exists():
            discard(_hide(folder))
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    fsync(folder.parent)


def _hide(folder: Path) -> Path:
    """Rename a release to a hidden name, so that it is gone whole even if its removal fails."""
    hidden = folder.with_name(f".{folder.name}.{time.time_ns()}")
    folder.rename(hidden)
    return hidden


def _remove_leftovers(root: Path) -> None:
    """Remove files of publishers that died; the lock excludes that one still uses them."""
    for leftover in (*(root / RELEASES).glob(".*"), *root.glob(f".{CURRENT}.*")):
        discard(leftover)


def _prune(root: Path, keep: int, engine: MilvusEngine | None) -> list[str]:
    live = read_current(root)
    protected = {live, read_manifest(release_folder(root, live)).parent} if live else set()
    known = [(release.id, release.manifest) for release in list_releases(root) if release.manifest]
    removed: list[str] = []
    collections: set[str] = set()
    for name, manifest in known[:-keep]:
        spec = collection_of(manifest)
        if name in protected or (spec and engine is None):
            continue
        if _delete(release_folder(root, name)):
            removed.append(name)
            collections |= {spec.collection} if spec else set()
    drop_unused(root, engine, collections)
    return removed


def _delete(folder: Path) -> bool:
    """Delete the release if no process has it open, and return whether it was deleted."""
    with deletion_lock(folder) as is_free:
        if not is_free:
            return False
        hidden = _hide(folder)
    discard(hidden)  # after the lock is closed: on NFS an open file cannot be removed
    return True


def _previous(root: Path) -> str:
    known = {release.id: release.manifest for release in list_releases(root) if release.manifest}
    live = read_current(root)
    if live is None:
        raise ReleaseError(f"{root}: nothing is published, so no release can be rolled back")
    manifest = known.pop(live, None)
    if manifest is None:
        older = list(known)
    elif manifest.parent in known:
        return manifest.parent
    else:
        older = [name for name, m in known.items() if m.created <= manifest.created]
    if not older:
        raise ReleaseError(f"{root}: no release is older than the live {live}; publish another")
    return older[-1]


def _check_keep(keep: int) -> None:
    if keep < 1:
        raise ValueError(f"keep: given {keep}, 1 or more is allowed")

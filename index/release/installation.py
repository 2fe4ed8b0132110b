"""A draft becomes a release of its root: gate, copy, rename. A release becomes the live one."""

import shutil
from itertools import count
from pathlib import Path

from index.ann.milvus_engine import MilvusEngine
from index.release.atomic_io import discard, fsync, hide, replace_text
from index.release.canary_file import remove_canary_of
from index.release.collections import make_collection_current
from index.release.errors import GateRefusal, ReleaseError
from index.release.gate import Gate
from index.release.listing import find_problem, live_release_id, release_folder
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
from index.release.pruning import remove_leftovers
from index.release.reading import Release, open_release, read_current
from index.release.verification import verify_files

_MAX_ID = 64  # characters


def root_of(draft: Path) -> Path:
    """The root of a draft. Raises ReleaseError for another folder than <root>/drafts/<id>."""
    draft = draft.absolute()  # links are not resolved: the path itself names the root
    if draft.parent.name != DRAFTS:
        raise ReleaseError(f"{draft}: not a draft; name a folder <root>/{DRAFTS}/<id>")
    return draft.parent.parent


def install(
    draft: Path,
    gate: Gate,
    force: bool,
    against: Manifest | None,
    engine: MilvusEngine | None,
) -> tuple[Path, Release]:
    """Make the draft a release of its root, which is locked; the release's folder, and it opened.

    Arguments and errors are those of `publish`.
    """
    root, draft = root_of(draft), draft.absolute()
    release = open_release(draft, engine=engine)
    failures = [] if force else _gate_failures(root, gate, release.manifest, against)
    if failures:
        raise GateRefusal(release.id, failures)
    remove_leftovers(root)
    published = _as_published(root / RELEASES, release.manifest, live_release_id(root))
    folder = root / RELEASES / published.id
    _install(draft, folder, published, engine)
    return folder, release


def make_live(root: Path, folder: Path, release: Release, engine: MilvusEngine | None) -> None:
    """Make the release in the folder the live one of its root, which is locked.

    In Milvus its alias names the collection before `current` names the release. If it was the
    canary, it is none any more. A crash before that file is removed leaves one that counts as none
    while its release is live; it is removed before another is.
    """
    make_collection_current(folder, release, engine)
    remove_canary_of(root, live_release_id(root))
    replace_text(root / CURRENT, f"{folder.name}\n")
    remove_canary_of(root, folder.name)


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
            discard(hide(folder))
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    fsync(folder.parent)

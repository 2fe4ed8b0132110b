"""The releases of a root folder: list them, find the live one, verify each."""

from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from index.ann.engine import Engine
from index.release.canary_file import CANARY, canary_release_id, read_canary
from index.release.errors import ReleaseError
from index.release.manifest import CURRENT, DRAFTS, RELEASES, Manifest, is_release_id, read_manifest
from index.release.reading import open_release, read_current


@dataclass(frozen=True)
class ReleaseListing:
    """A release that was not verified; problem: why its manifest cannot be read."""

    id: str
    current: bool
    manifest: Manifest | None
    problem: str | None = None
    canary: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.manifest.files.values()) if self.manifest else 0


@dataclass(frozen=True)
class VerificationResult:
    """problem: why the release cannot be opened; None for a sound one."""

    id: str
    problem: str | None


def read_live_manifest(root: Path) -> Manifest:
    """The manifest of the release that `current` names. Raises ReleaseError if it names none."""
    check_root(root)
    current = read_current(root)
    if current is None:
        raise ReleaseError(f"{root}: no live release; run: python -m index publish DRAFT")
    return read_manifest(release_folder(root, current))


def list_releases(root: Path) -> list[ReleaseListing]:
    """The releases by creation of their drafts, newest last; unreadable ones come first."""
    check_root(root)
    live, canary = live_release_id(root), canary_release_id(root)
    folders = (root / RELEASES).glob("*")
    listed = [
        replace(_list(folder, folder.name == live), canary=folder.name == canary)
        for folder in folders
        if is_release_id(folder.name) and folder.is_dir()
    ]
    return sorted(listed, key=_by_creation)


def verify(
    root: Path, to: str | None = None, engine: Engine | None = None
) -> list[VerificationResult]:
    """Open the release `to`, or without it every release, the live one and the canary included.

    engine: for indexes that are not in files.
    Raises ReleaseError if `to` is not a valid id, or the folder is not a root.
    """
    if to is not None:
        return [VerificationResult(to, find_problem(release_folder(root, to), engine))]
    ids = [release.id for release in list_releases(root)]
    results = [
        VerificationResult(name, find_problem(release_folder(root, name), engine)) for name in ids
    ]
    for pointer, read in ((CURRENT, read_current), (CANARY, _canary_of)):
        try:
            named = read(root)
        except ReleaseError as error:
            results.append(VerificationResult(pointer, str(error)))
            continue
        if named is not None and named not in ids:
            problem = find_problem(release_folder(root, named), engine)
            results.append(VerificationResult(named, problem))
    return results


def live_release_id(root: Path) -> str | None:
    """The id that `current` names; None if it names none or cannot be read."""
    try:
        return read_current(root)
    except ReleaseError:
        return None


def release_folder(root: Path, release_id: str) -> Path:
    if not is_release_id(release_id):
        raise ReleaseError(f"{release_id!r}: not a release id; `python -m index list` shows them")
    return root / RELEASES / release_id


def _list(folder: Path, current: bool) -> ReleaseListing:
    try:
        return ReleaseListing(folder.name, current, read_manifest(folder))
    except ReleaseError as error:
        return ReleaseListing(folder.name, current, None, str(error))


def _canary_of(root: Path) -> str | None:
    canary = None if live_release_id(root) is None else read_canary(root)
    return canary.release if canary else None


def _by_creation(release: ReleaseListing) -> tuple[float, str]:
    return release.manifest.created.timestamp() if release.manifest else -inf, release.id


def find_problem(folder: Path, engine: Engine | None = None) -> str | None:
    """Why the release in the folder cannot be opened; None for a sound one."""
    try:
        open_release(folder, engine=engine)
    except ReleaseError as error:
        return str(error)
    return None


def check_root(root: Path) -> None:
    if not any((root / name).is_dir() for name in (DRAFTS, RELEASES)):
        raise ReleaseError(
            f"{root}: has neither {DRAFTS}/ nor {RELEASES}/; name a folder that has one"
        )

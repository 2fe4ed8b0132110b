"""The releases of a root: which there are, which is live, and whether each verifies."""

from dataclasses import dataclass
from math import inf
from pathlib import Path

from index.release.errors import ReleaseError
from index.release.manifest import CURRENT, DRAFTS, RELEASES, Manifest, is_release_id, read_manifest
from index.release.reading import open_release, read_current


@dataclass(frozen=True)
class ReleaseListing:
    """A release as it lies there, not verified; where its manifest cannot be read, the problem."""

    id: str
    current: bool
    manifest: Manifest | None
    problem: str | None = None

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.manifest.files.values()) if self.manifest else 0


@dataclass(frozen=True)
class VerificationResult:
    """What opening a release said: nothing, or what is amiss."""

    id: str
    problem: str | None


def live(root: Path) -> Manifest:
    """Of the release that `current` names. Raises ReleaseError if it names none."""
    check_root(root)
    current = read_current(root)
    if current is None:
        raise ReleaseError(f"{root}: no live release; run: python -m index publish DRAFT")
    return read_manifest(release_folder(root, current))


def list_releases(root: Path) -> list[ReleaseListing]:
    """The releases, by the time their drafts were made, newest last; first those not readable."""
    check_root(root)
    live = live_id(root)
    folders = (root / RELEASES).glob("*")
    listed = [_list(f, f.name == live) for f in folders if is_release_id(f.name) and f.is_dir()]
    return sorted(listed, key=_by_creation)


def verify(root: Path, to: str | None = None) -> list[VerificationResult]:
    """Open one release, or each of them and what `current` names.

    Raises ReleaseError if `to` is no release's id, or the root no root.
    """
    if to is not None:
        return [VerificationResult(to, problem_of(release_folder(root, to)))]
    ids = [release.id for release in list_releases(root)]
    verdicts = [VerificationResult(name, problem_of(release_folder(root, name))) for name in ids]
    try:
        live = read_current(root)
    except ReleaseError as error:
        return [*verdicts, VerificationResult(CURRENT, str(error))]
    if live is not None and live not in ids:
        verdicts.append(VerificationResult(live, problem_of(release_folder(root, live))))
    return verdicts


def live_id(root: Path) -> str | None:
    try:
        return read_current(root)
    except ReleaseError:
        return None


def release_folder(root: Path, release_id: str) -> Path:
    if not is_release_id(release_id):
        raise ReleaseError(f"{release_id!r}: no release's id; `python -m index list` shows them")
    return root / RELEASES / release_id


def _list(folder: Path, current: bool) -> ReleaseListing:
    try:
        return ReleaseListing(folder.name, current, read_manifest(folder))
    except ReleaseError as error:
        return ReleaseListing(folder.name, current, None, str(error))


def _by_creation(release: ReleaseListing) -> tuple[float, str]:
    return release.manifest.created.timestamp() if release.manifest else -inf, release.id


def problem_of(folder: Path) -> str | None:
    try:
        open_release(folder)
    except ReleaseError as error:
        return str(error)
    return None


def check_root(root: Path) -> None:
    if not any((root / name).is_dir() for name in (DRAFTS, RELEASES)):
        raise ReleaseError(f"{root}: has neither {DRAFTS}/ nor {RELEASES}/; name a folder that has")

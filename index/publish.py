"""Drafts become releases: gate, copy, rename, move `current`; roll back, list, verify, prune.

Every change is made under the root's lock, in an order that a crash may cut anywhere: `current`
names the old release whole or the new one whole. What a crash leaves behind has a name that starts
with a dot, is listed nowhere, and is removed by the next publish or prune.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path

from index.durable import discard
from index.lock import alone
from index.release import (
    CURRENT,
    DRAFTS,
    INTERESTS,
    RELEASES,
    Manifest,
    ReleaseError,
    deletable,
    fsync,
    is_release_id,
    open_release,
    read_current,
    read_manifest,
    replace_text,
    verify_files,
    write_manifest,
)

KEEP = 5
_LOCK = ".lock"


class GateRefusal(ReleaseError):  # noqa: N818  (a refusal is its name; the error is its base)
    """A sound draft that is too much worse, or too different, than the live release."""

    def __init__(self, draft: str, failures: list[str]) -> None:
        super().__init__(
            f"{draft}: refused by the gate: {'; '.join(failures)}; "
            "`python -m index publish --force` overrides"
        )
        self.failures = failures


@dataclass(frozen=True)
class Gate:
    """What a draft must hold beside the live release. Shares: 0.05 is 5 %.

    split, metric: the offline metric that is compared; where the two manifests do not both have it,
    the first that they share.
    metric_drop: how far it may lie below the live one's, as a share of that.
    ann_recall: how much of exact search's answer the index must return.
    size_change: how far the number of items may lie from the live one's, as a share of that.
    """

    split: str = "validation"
    metric: str = "recall@50"
    metric_drop: float = 0.05
    ann_recall: float = 0.95
    size_change: float = 0.2

    def failures(self, draft: Manifest, live: Manifest | None) -> list[str]:
        """A sentence for each check that fails; two of the three need a live release."""
        found = self._ann_failures(draft)
        if live is not None:
            found += self._metric_failures(draft, live) + self._size_failures(draft, live)
        return found

    def _ann_failures(self, draft: Manifest) -> list[str]:
        recall = draft.index.recall if draft.index else 0.0
        if recall >= self.ann_recall:
            return []
        short = self.ann_recall - recall
        return [
            f"ANN recall is {recall:.4f}, {short:.4f} below the {self.ann_recall} that is needed"
        ]

    def _metric_failures(self, draft: Manifest, live: Manifest) -> list[str]:
        shared = [
            (split, metric)
            for split in sorted(draft.metrics.keys() & live.metrics.keys(), key=self._split_order)
            for metric in sorted(draft.metrics[split].keys() & live.metrics[split].keys())
        ]
        if not shared:
            return [f"no offline metric is in both its manifest and that of the live {live.id}"]
        wanted = (self.split, self.metric)
        split, metric = wanted if wanted in shared else shared[0]
        new, old = draft.metrics[split][metric], live.metrics[split][metric]
        allowed = self.metric_drop * abs(old)
        if new >= old - allowed:
            return []
        return [
            f"{metric} ({split}) is {new:.4f}, {old - new:.4f} below the {old:.4f} of the live "
            f"{live.id}, where {allowed:.4f} ({self.metric_drop:.1%}) may be"
        ]

    def _split_order(self, split: str) -> tuple[bool, str]:
        return split != self.split, split

    def _size_failures(self, draft: Manifest, live: Manifest) -> list[str]:
        new, old = draft.data.items, live.data.items
        change = (new - old) / old
        if abs(change) <= self.size_change:
            return []
        return [
            f"the catalogue has {new:,} items, {change:+.1%} from the {old:,} of the live "
            f"{live.id}, where {self.size_change:.1%} may be"
        ]


@dataclass(frozen=True)
class Listed:
    """A release as it lies there, not verified; where its manifest cannot be read, the problem."""

    id: str
    current: bool
    manifest: Manifest | None
    problem: str | None = None

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.manifest.files.values()) if self.manifest else 0


@dataclass(frozen=True)
class Verdict:
    """What opening a release said: nothing, or what is amiss."""

    id: str
    problem: str | None


def publish(
    draft: Path,
    gate: Gate = Gate(),
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
        _install(draft, folder, _as_published(folder, manifest, _live_id(root)))
        replace_text(root / CURRENT, f"{manifest.id}\n")
        _prune(root, keep)
    return folder


def rollback(root: Path, to: str | None = None) -> Path:
    """Make an earlier release current: `to`, else the live one's parent, else the one before it.

    Raises ReleaseError if there is none, or it cannot be opened; then `current` stays.
    """
    with _locked(root):
        folder = _folder(root, _previous(root) if to is None else to)
        release = open_release(folder)
        replace_text(root / CURRENT, f"{release.id}\n")
    return folder


def live(root: Path) -> Manifest:
    """Of the release that `current` names. Raises ReleaseError if it names none."""
    _check_root(root)
    current = read_current(root)
    if current is None:
        raise ReleaseError(f"{root}: no live release; run: python -m index publish DRAFT")
    return read_manifest(_folder(root, current))


def list_releases(root: Path) -> list[Listed]:
    """The releases, by the time their drafts were made, newest last; first those not readable."""
    _check_root(root)
    live = _live_id(root)
    folders = (root / RELEASES).glob("*")
    listed = [_list(f, f.name == live) for f in folders if is_release_id(f.name) and f.is_dir()]
    return sorted(listed, key=_by_creation)


def verify(root: Path, to: str | None = None) -> list[Verdict]:
    """Open one release, or each of them and what `current` names.

    Raises ReleaseError if `to` is no release's id, or the root no root.
    """
    if to is not None:
        return [Verdict(to, _problem(_folder(root, to)))]
    ids = [release.id for release in list_releases(root)]
    verdicts = [Verdict(name, _problem(_folder(root, name))) for name in ids]
    try:
        live = read_current(root)
    except ReleaseError as error:
        return [*verdicts, Verdict(CURRENT, str(error))]
    if live is not None and live not in ids:
        verdicts.append(Verdict(live, _problem(_folder(root, live))))
    return verdicts


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
    _check_root(root)
    held = ReleaseError(
        f"{root}: another publish, rollback or prune is at work; try again when it has ended"
    )
    try:
        with alone(root / _LOCK, held):
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
            return gate.failures(draft, read_manifest(_folder(root, live)) if live else None)
    except ReleaseError as error:
        return [f"the live release cannot be compared with ({error})"]
    if live != against.id:
        raise ReleaseError(
            f"{draft.id}: was compared with {against.id}, and {live} is live now; compare again"
        )
    return gate.failures(draft, against)


def _live_id(root: Path) -> str | None:
    try:
        return read_current(root)
    except ReleaseError:
        return None


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
    if folder.exists() and _problem(folder) is None:
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
    needed = {live, read_manifest(_folder(root, live)).parent} if live else set()
    ids = [release.id for release in list_releases(root) if release.manifest is not None]
    return [name for name in ids[:-keep] if name not in needed and _delete(_folder(root, name))]


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


def _folder(root: Path, release_id: str) -> Path:
    if not is_release_id(release_id):
        raise ReleaseError(f"{release_id!r}: no release's id; `python -m index list` shows them")
    return root / RELEASES / release_id


def _list(folder: Path, current: bool) -> Listed:
    try:
        return Listed(folder.name, current, read_manifest(folder))
    except ReleaseError as error:
        return Listed(folder.name, current, None, str(error))


def _by_creation(release: Listed) -> tuple[float, str]:
    return release.manifest.created.timestamp() if release.manifest else -inf, release.id


def _problem(folder: Path) -> str | None:
    try:
        open_release(folder)
    except ReleaseError as error:
        return str(error)
    return None


def _check_root(root: Path) -> None:
    if not any((root / name).is_dir() for name in (DRAFTS, RELEASES)):
        raise ReleaseError(f"{root}: has neither {DRAFTS}/ nor {RELEASES}/; name a folder that has")


def _check_keep(keep: int) -> None:
    if keep < 1:
        raise ValueError(f"keep: given {keep}, 1 or more is allowed")

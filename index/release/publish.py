"""Publish a draft as the live release, roll back to an earlier one, prune old ones.

Every change holds the root's lock. A crash at any step leaves `current` naming a whole release, the
old or the new one. Leftovers of a crash have names that start with a dot: no list shows them, and
the next publish or prune removes them.
"""

from pathlib import Path

from index.ann.milvus_engine import MilvusEngine
from index.release.errors import ReleaseError
from index.release.gate import DEFAULT_GATE, Gate
from index.release.installation import install, make_live, root_of
from index.release.listing import list_releases, release_folder
from index.release.manifest import Manifest
from index.release.pruning import KEEP, check_keep, remove_leftovers, remove_old_releases
from index.release.reading import open_release, read_current
from index.release.root_lock import locked_root


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
    check_keep(keep)
    root = root_of(draft)
    with locked_root(root):
        folder, release = install(draft, gate, force, against, engine)
        make_live(root, folder, release, engine)
        remove_old_releases(root, keep, engine)
    return folder


def rollback(root: Path, to: str | None = None, engine: MilvusEngine | None = None) -> Path:
    """Make an earlier release current: `to`, else the live one's parent, else the one before it.

    Raises ReleaseError, and leaves `current` alone, if there is none or it cannot be opened.
    """
    with locked_root(root):
        folder = release_folder(root, _previous(root) if to is None else to)
        release = open_release(folder, engine=engine)
        make_live(root, folder, release, engine)
    return folder


def prune(root: Path, keep: int = KEEP, engine: MilvusEngine | None = None) -> list[str]:
    """Delete all but the newest `keep` releases, and return the ids of those deleted.

    The current one, its parent (for a rollback), the canary and any that a process has open always
    stay; so do those in Milvus, without an engine to drop their collections.
    """
    check_keep(keep)
    with locked_root(root):
        remove_leftovers(root)
        return remove_old_releases(root, keep, engine)


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

"""Removal of old releases, and of what publishers that died have left. The root is locked."""

from pathlib import Path

from index.ann.milvus_engine import MilvusEngine
from index.release.atomic_io import discard, hide
from index.release.canary_file import CANARY, canary_release_id
from index.release.collections import collection_of, drop_unused
from index.release.listing import list_releases, release_folder
from index.release.lock import deletion_lock
from index.release.manifest import CURRENT, RELEASES, read_manifest
from index.release.reading import read_current

KEEP = 5


def check_keep(keep: int) -> None:
    """Raises ValueError unless at least one release is kept."""
    if keep < 1:
        raise ValueError(f"keep: given {keep}, 1 or more is allowed")


def remove_leftovers(root: Path) -> None:
    """Remove files of publishers that died; the lock excludes that one still uses them."""
    temporary = [file for name in (CURRENT, CANARY) for file in root.glob(f".{name}.*")]
    for leftover in (*(root / RELEASES).glob(".*"), *temporary):
        discard(leftover)


def remove_old_releases(root: Path, keep: int, engine: MilvusEngine | None) -> list[str]:
    """All but the newest `keep`, and those that `prune` keeps always; the ids of those deleted."""
    live = read_current(root)
    protected = {live, read_manifest(release_folder(root, live)).parent} if live else set()
    protected.add(canary_release_id(root))
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
        hidden = hide(folder)
    discard(hidden)  # after the lock is closed: on NFS an open file cannot be removed
    return True

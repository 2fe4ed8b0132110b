"""The collections of a root's releases in Milvus: built for a draft, made current, dropped.

Which release a collection is of stands in the manifests; no file lists them.
"""

import logging
from dataclasses import replace
from pathlib import Path

from index.ann.milvus import MilvusIndex
from index.ann.milvus_engine import MilvusEngine
from index.ann.spec import MilvusSpec
from index.release.canaries import check_canaries
from index.release.errors import ReleaseError, as_release_error
from index.release.manifest import DRAFTS, RELEASES, Manifest, read_manifest
from index.release.reading import Release
from index.retrieval.search import SearchUnavailableError

log = logging.getLogger(__name__)


def collection_of(manifest: Manifest) -> MilvusSpec | None:
    """The collection that holds the manifest's index; None if the index is in a file, or none."""
    return manifest.index.spec.milvus if manifest.index else None


def make_collection_current(folder: Path, release: Release, engine: MilvusEngine | None) -> None:
    """Let the alias name the release's collection, and wait for right answers to the canaries.

    Of a release with its index in a file, nothing happens.
    """
    spec, manifest, retriever = collection_of(release.manifest), release.manifest, release.retriever
    if spec is None or engine is None:
        return

    def answers(index: MilvusIndex) -> None:
        check_canaries(folder, replace(retriever, index=index), manifest.canaries)

    with as_release_error(f"{manifest.id}: its collection cannot be made current"):
        engine.make_current(spec, retriever.vectors, answers)


def drop_unused(root: Path, engine: MilvusEngine | None, collections: set[str]) -> None:
    """Drop those of the collections that no draft and no release of the root names.

    A failure leaves them, with a warning: the release is live, or deleted, all the same.
    """
    if engine is None or not collections:
        return
    unused = sorted(collections - _named(root))
    try:
        engine.drop(unused)
    except SearchUnavailableError:
        log.warning("not dropped in Milvus, drop by hand: %s", ", ".join(unused))


def _named(root: Path) -> set[str]:
    named = set()
    for folder in (*(root / DRAFTS).glob("[!.]*"), *(root / RELEASES).glob("[!.]*")):
        try:
            spec = collection_of(read_manifest(folder))
        except ReleaseError:
            continue
        if spec is not None:
            named.add(spec.collection)
    return named

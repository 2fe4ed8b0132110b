"""Build: a draft -> the same draft with an index whose recall was measured, ready to publish."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.ann.flat import FlatIndex
from index.ann.index import read_index
from index.ann.ivf import IvfIndex
from index.ann.milvus_engine import MilvusEngine
from index.ann.spec import IndexMeasurement, IndexSpec, MilvusIndexType
from index.ann.tuning import Progress, tune
from index.encoders import Encoder
from index.release.atomic_io import atomic_path, fsync
from index.release.canaries import answer_canaries
from index.release.collections import collection_of, drop_unused
from index.release.errors import ReleaseError, as_release_error
from index.release.manifest import (
    FORMAT_WITH_COLLECTION,
    FORMAT_WITH_FILES,
    INDEX,
    INTERESTS,
    FileDigest,
    Manifest,
    digest,
    read_manifest,
    write_manifest,
)
from index.release.reading import read_parts
from index.release.verification import verify_files
from index.retrieval.catalog import Catalog
from index.retrieval.filters import Categories
from index.retrieval.retriever import Retriever

_Parts = tuple[Encoder, NDArray[np.float32], Catalog]


def build(
    draft: Path,
    recall: float = 0.95,
    k: int = 50,
    progress: Progress = lambda message: None,
    engine: MilvusEngine | None = None,
    index_type: MilvusIndexType = "HNSW",
) -> Manifest:
    """Give the draft the cheapest index that reaches the recall at k for held-out users.

    recall: the share of exact search's merged top k that the index must return, above 0 to 1.
    progress is called with each measurement. engine: Milvus, to hold the index in a collection,
    of that index_type, and in no file. A draft may be built again. Killed at any moment,
    this leaves the draft as it was, or without an index, or built.
    Raises ReleaseError, the draft as it was, if it cannot be built.
    """
    if not 0 < recall <= 1:
        raise ReleaseError(f"recall: {recall}, above 0 to 1 is allowed; choose such a recall")
    if k < 1:
        raise ReleaseError(f"k: {k}, at least 1 item is allowed; ask for more items")
    manifest = read_manifest(draft)
    verify_files(draft, manifest)
    parts = read_parts(draft, manifest)
    interests = _read_interests(draft, manifest, parts[1].shape[1])
    wanted = _Wanted(interests, recall, k, progress)
    if engine is not None:
        return _build_collection(draft, manifest, parts, wanted, engine, index_type)
    return _build_file(draft, manifest, parts, wanted)


@dataclass(frozen=True)
class _Wanted:
    """The recall at k for interests (Q, K, D) of held-out users; progress is told each trial."""

    interests: NDArray[np.float32]
    recall: float
    k: int
    progress: Progress


def _build_file(draft: Path, manifest: Manifest, parts: _Parts, wanted: _Wanted) -> Manifest:
    encoder, vectors, catalog = parts
    index, measurement = tune(vectors, wanted.interests, wanted.recall, wanted.k, wanted.progress)
    retriever = Retriever(catalog, encoder, vectors, index, manifest.encoder.history_length)
    for leftover in draft.glob(f".{INDEX}.*"):  # of a build that was killed
        leftover.unlink()
    with atomic_path(draft / INDEX) as temporary:
        _write_index(draft, temporary, index, vectors, measurement.spec)
        built = _built(manifest, measurement, retriever, {INDEX: digest(temporary)})
        if manifest.index is not None:
            _remove_index_from_manifest(draft, manifest)
    write_manifest(draft, built)
    return built


def _read_interests(draft: Path, manifest: Manifest, dim: int) -> NDArray[np.float32]:
    if INTERESTS not in manifest.files:
        raise ReleaseError(f"{draft.name}: no {INTERESTS} of held-out users; train again")
    try:
        interests: NDArray[np.float32] = np.load(draft / INTERESTS, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ReleaseError(f"{draft.name}: {INTERESTS} cannot be read ({error})") from error
    shape = interests.shape
    if interests.dtype != np.float32 or len(shape) != 3 or 0 in shape or shape[2] != dim:
        raise ReleaseError(
            f"{draft.name}: {INTERESTS} is {interests.dtype} of shape {shape}; "
            f"float32 (users, interests, {dim}) of at least one user is needed; train again"
        )
    if not np.isfinite(interests).all():
        raise ReleaseError(f"{draft.name}: {INTERESTS} has values that are not finite; train again")
    return interests


def _write_index(
    draft: Path,
    path: Path,
    index: FlatIndex | IvfIndex,
    vectors: NDArray[np.float32],
    spec: IndexSpec,
) -> None:
    """Write the index, and check that the file is complete before anything else changes."""
    try:
        index.write(path)
        read_index(
            path, vectors, spec, check_all=True
        )  # faiss reports no error if the last bytes found no space
        fsync(path)
    except (OSError, RuntimeError, ValueError) as error:
        # Whatever faiss raises, the disk is the cause: the index itself was checked before.
        disk = error if isinstance(error, OSError) else OSError(str(error))
        raise ReleaseError(f"{draft.name}: {INDEX} cannot be written ({error})") from disk


def _build_collection(
    draft: Path,
    manifest: Manifest,
    parts: _Parts,
    wanted: _Wanted,
    engine: MilvusEngine,
    index_type: MilvusIndexType,
) -> Manifest:
    encoder, vectors, catalog = parts
    codes = Categories(catalog.categories, catalog.other_categories).codes
    with as_release_error(f"{draft.name}: cannot be built in Milvus"):
        index, measurement = engine.build(
            manifest.id,
            vectors,
            codes,
            wanted.interests,
            wanted.recall,
            wanted.k,
            index_type,
            wanted.progress,
        )
        retriever = Retriever(catalog, encoder, vectors, index, manifest.encoder.history_length)
        built = _built(manifest, measurement, retriever, {})
    write_manifest(draft, built)
    (draft / INDEX).unlink(missing_ok=True)
    former = collection_of(manifest)
    drop_unused(draft.parent.parent, engine, {former.collection} if former else set())
    return built


def _built(
    manifest: Manifest,
    measurement: IndexMeasurement,
    retriever: Retriever,
    index_files: Mapping[str, FileDigest],
) -> Manifest:
    """The manifest with the index of those files, and its answers to the canary queries."""
    answers = answer_canaries(retriever, manifest.canaries)
    canaries = tuple(
        canary.model_copy(update={"items": items})
        for canary, items in zip(manifest.canaries, answers, strict=True)
    )
    others = {name: file for name, file in manifest.files.items() if name != INDEX}
    changes = {
        "format": FORMAT_WITH_FILES if index_files else FORMAT_WITH_COLLECTION,
        "index": measurement,
        "canaries": canaries,
        "files": {**others, **index_files},
    }
    return manifest.model_copy(update=changes)


def _remove_index_from_manifest(draft: Path, manifest: Manifest) -> None:
    """Keep the manifest true while the index file is replaced."""
    files = {name: file for name, file in manifest.files.items() if name != INDEX}
    write_manifest(draft, manifest.model_copy(update={"index": None, "files": files}))

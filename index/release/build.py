"""Build: a draft -> the same draft with an index whose recall was measured, ready to publish."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.ann.index import read_index
from index.ann.spec import IndexMeasurement, IndexSpec
from index.ann.tuning import Progress, tune
from index.release.atomic_io import atomic_path, fsync
from index.release.canaries import answer_canaries
from index.release.errors import ReleaseError
from index.release.manifest import INDEX, INTERESTS, Manifest, digest, read_manifest, write_manifest
from index.release.reading import read_parts
from index.release.verification import verify_files
from index.retrieval.retriever import Retriever
from index.retrieval.search import ItemIndex


def build(
    draft: Path, recall: float = 0.95, k: int = 50, progress: Progress = lambda message: None
) -> Manifest:
    """Give the draft the cheapest index that reaches the recall at k for held-out users.

    recall: the share of exact search's merged top k that the index must return, above 0 to 1.
    progress is called with each measurement. A draft may be built again. Killed at any moment,
    this leaves the draft as it was, or without an index, or built.
    Raises ReleaseError, the draft as it was, if it cannot be built.
    """
    if not 0 < recall <= 1:
        raise ReleaseError(f"recall: {recall}, above 0 to 1 is allowed; choose such a recall")
    if k < 1:
        raise ReleaseError(f"k: {k}, at least 1 item is allowed; ask for more items")
    manifest = read_manifest(draft)
    verify_files(draft, manifest)
    encoder, vectors, catalog = read_parts(draft, manifest)
    interests = _read_interests(draft, manifest, vectors.shape[1])
    index, measurement = tune(vectors, interests, recall, k, progress)
    retriever = Retriever(catalog, encoder, vectors, index, manifest.encoder.history_length)
    for leftover in draft.glob(f".{INDEX}.*"):  # of a build that was killed
        leftover.unlink()
    with atomic_path(draft / INDEX) as temporary:
        _write_index(draft, temporary, index, vectors, measurement.spec)
        built = _built(manifest, measurement, retriever, temporary)
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
    draft: Path, path: Path, index: ItemIndex, vectors: NDArray[np.float32], spec: IndexSpec
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


def _built(
    manifest: Manifest, measurement: IndexMeasurement, retriever: Retriever, index: Path
) -> Manifest:
    """The manifest with the index of that file, and its answers to the canary queries."""
    answers = answer_canaries(retriever, manifest.canaries)
    canaries = tuple(
        canary.model_copy(update={"items": items})
        for canary, items in zip(manifest.canaries, answers, strict=True)
    )
    files = {**manifest.files, INDEX: digest(index)}
    return manifest.model_copy(update={"index": measurement, "canaries": canaries, "files": files})


def _remove_index_from_manifest(draft: Path, manifest: Manifest) -> None:
    """Keep the manifest true while the index file is replaced."""
    files = {name: file for name, file in manifest.files.items() if name != INDEX}
    write_manifest(draft, manifest.model_copy(update={"index": None, "files": files}))

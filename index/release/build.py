"""A draft -> the same draft with an index that was measured, ready to publish."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.ann.index import read_index
from index.ann.spec import IndexSpec
from index.ann.tuning import Progress, tune
from index.release.atomic_io import fsync
from index.release.canaries import answer_canaries
from index.release.errors import ReleaseError
from index.release.manifest import INDEX, INTERESTS, Manifest, digest, read_manifest, write_manifest
from index.release.reading import read_parts, verify_files
from index.retrieval.retriever import Retriever
from index.retrieval.search import ItemIndex


def build(
    draft: Path, recall: float = 0.95, k: int = 50, progress: Progress = lambda said: None
) -> Manifest:
    """Give the draft the cheapest index that reaches the recall at k for held-out users.

    recall: the share of exact search's merged top k that the index must return, above 0 to 1.
    progress is told what was measured. A draft may be built again. Killed at any moment, this
    leaves the draft as it was, or without an index, or built.
    Raises ReleaseError, the draft as it was, if it cannot be built.
    """
    if not 0 < recall <= 1:
        raise ReleaseError(f"recall: {recall}, above 0 to 1 can be reached; ask for that")
    if k < 1:
        raise ReleaseError(f"k: {k}, at least 1 item must be asked for")
    manifest = read_manifest(draft)
    verify_files(draft, manifest)
    encoder, vectors, catalog = read_parts(draft, manifest)
    interests = _read_interests(draft, manifest, vectors.shape[1])
    index, measured = tune(vectors, interests, recall, k, progress)
    aside = _write_aside(draft, index, vectors, measured.spec)
    retriever = Retriever(catalog, encoder, vectors, index, manifest.encoder.history_length)
    canaries = tuple(
        canary.model_copy(update={"items": items})
        for canary, items in zip(
            manifest.canaries, answer_canaries(retriever, manifest.canaries), strict=True
        )
    )
    built = manifest.model_copy(
        update={
            "index": measured,
            "canaries": canaries,
            "files": {**manifest.files, INDEX: digest(aside)},
        }
    )
    if manifest.index is not None:
        _take_index_away(draft, manifest)
    aside.replace(draft / INDEX)
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


def _write_aside(
    draft: Path, index: ItemIndex, vectors: NDArray[np.float32], spec: IndexSpec
) -> Path:
    """The index in a file of its own beside the draft's, complete and readable."""
    for left in draft.glob(f".{INDEX}.*"):  # by a build that was killed
        left.unlink()
    aside = draft / f".{INDEX}.{os.getpid()}"
    try:
        index.write(aside)
        read_index(aside, vectors, spec)  # faiss does not tell when the last bytes had no space
        fsync(aside)
    except (OSError, RuntimeError, ValueError) as error:
        aside.unlink(missing_ok=True)
        # Whatever faiss makes of it, it is the disk: what was to be written had been checked.
        disk = error if isinstance(error, OSError) else OSError(str(error))
        raise ReleaseError(f"{draft.name}: {INDEX} cannot be written ({error})") from disk
    return aside


def _take_index_away(draft: Path, manifest: Manifest) -> None:
    """Make the manifest name no index, so that it is true while the file is exchanged."""
    files = {name: file for name, file in manifest.files.items() if name != INDEX}
    write_manifest(draft, manifest.model_copy(update={"index": None, "files": files}))

"""The release contract: what a draft or release folder holds; to write, verify and open one.

    <root>/drafts/<id>/      made by training, completed by build; servers never look here
    <root>/releases/<id>/    immutable
        manifest.json        this module's Manifest, written last: no manifest, no release
        encoder.safetensors  weights
        item_vectors.npy     (N + 1, D) float32, row 0 zero
        catalog.parquet      ids in row order, popularity, category and title where known
        items.faiss          the index over item_vectors
    <root>/current           one id

No pickle anywhere. Whatever is amiss in a folder is a ReleaseError of one sentence.
"""

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from index.ann.index import read_index
from index.encoders import Encoder, build_encoder
from index.release.canaries import try_canaries
from index.release.catalog import read_catalog
from index.release.errors import ReleaseError, raising_release_error, stage_of_opening
from index.release.lock import hold
from index.release.manifest import (
    CATALOG,
    CURRENT,
    ENCODER,
    INDEX,
    MANIFEST,
    RELEASES,
    VECTORS,
    EncoderSpec,
    FileDigest,
    Manifest,
    digest,
    is_release_id,
    read_manifest,
)
from index.retrieval.catalog import Catalog
from index.retrieval.retriever import Retriever

_CURRENT_LIMIT_BYTES = 1 << 10


@dataclass(frozen=True)
class Release:
    """An opened release: everything needed to answer, of one piece.

    One that open_release made is safe from `prune` for as long as the object lives.
    """

    manifest: Manifest
    retriever: Retriever

    @property
    def id(self) -> str:
        return self.manifest.id


# --- writing ---


# --- reading ---


def read_current(root: Path) -> str | None:
    """The id of the release to serve; None before the first is published.

    Raises ReleaseError if what `current` holds cannot be read or is no id.
    """
    try:
        with (root / CURRENT).open("rb") as file:
            text = file.read(_CURRENT_LIMIT_BYTES).decode("utf-8", "replace").removesuffix("\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReleaseError(f"{root / CURRENT}: cannot be read ({error})") from error
    if not is_release_id(text):
        raise ReleaseError(
            f"{root / CURRENT}: holds {text!r}, not a release's id; rollback --to one"
        )
    return text


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Raises ReleaseError unless every file has the size and hash of the manifest."""
    for name in {ENCODER, VECTORS, CATALOG} - manifest.files.keys():
        raise ReleaseError(f"{folder.name}: {MANIFEST} does not list {name}; train again")
    for name, expected in manifest.files.items():
        _verify_file(folder / name, expected)


def _verify_file(path: Path, expected: FileDigest) -> None:
    what = f"{path.parent.name}: {path.name}"
    try:
        if not path.is_file():
            raise ReleaseError(f"{what} is missing; publish the release again")
        size = path.stat().st_size
        if size != expected.size_bytes:
            raise ReleaseError(
                f"{what} has {size:,} bytes, the manifest says {expected.size_bytes:,}; "
                "publish it again"
            )
        if digest(path) != expected:
            raise ReleaseError(f"{what} does not have the manifest's sha256; publish it again")
    except OSError as error:
        raise ReleaseError(f"{what} cannot be read ({error})") from error


def read_parts(folder: Path, manifest: Manifest) -> tuple[Encoder, NDArray[np.float32], Catalog]:
    """Encoder, vectors and catalogue of a verified folder, agreeing in every dimension."""
    with raising_release_error(f"{folder.name}: {CATALOG} cannot be used"):
        catalog = read_catalog(folder / CATALOG)
    vectors = _read_vectors(folder)
    encoder = _read_encoder(folder, manifest.encoder)
    if manifest.data.items != len(catalog):
        raise ReleaseError(
            f"{folder.name}: {CATALOG} has {len(catalog):,} items, "
            f"{MANIFEST} says {manifest.data.items:,}; train again"
        )
    if len(vectors) != len(catalog) + 1:
        raise ReleaseError(
            f"{folder.name}: {VECTORS} has {len(vectors) - 1:,} items, "
            f"{CATALOG} has {len(catalog):,}; train again"
        )
    if vectors.shape[1] != encoder.dim:
        raise ReleaseError(
            f"{folder.name}: {VECTORS} has dimension {vectors.shape[1]}, "
            f"the encoder {encoder.dim}; train again"
        )
    return encoder, vectors, catalog


def _read_vectors(folder: Path) -> NDArray[np.float32]:
    with raising_release_error(f"{folder.name}: {VECTORS} cannot be used"):
        vectors: NDArray[np.float32] = np.lib.format.open_memmap(folder / VECTORS, mode="r")
    if vectors.ndim != 2 or vectors.dtype != np.float32 or not vectors.flags.c_contiguous:
        raise ReleaseError(
            f"{folder.name}: {VECTORS} is {vectors.dtype} of shape {vectors.shape}; "
            "float32 (N + 1, D) in C order is needed"
        )
    if len(vectors) == 0 or vectors[0].any():
        raise ReleaseError(f"{folder.name}: {VECTORS} has no row 0 of zeros; train again")
    if not np.isfinite(vectors).all():
        raise ReleaseError(f"{folder.name}: {VECTORS} has values that are not finite; train again")
    return vectors


def _read_encoder(folder: Path, spec: EncoderSpec) -> Encoder:
    with raising_release_error(
        f"{folder.name}: {ENCODER} does not make the encoder of the manifest"
    ):
        with torch.device("meta"), _Unset():  # shapes without memory, whatever the arguments
            encoder = build_encoder(spec.name, spec.arguments)
        # Cloned, as the file is mapped and its tensors lie unaligned.
        weights = {name: tensor.clone() for name, tensor in load_file(folder / ENCODER).items()}
        _check_shapes(encoder.state_dict(), weights)
        encoder.load_state_dict(weights, assign=True)
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise ReleaseError(f"{folder.name}: {ENCODER} has weights that are not finite; train again")
    return encoder.eval().requires_grad_(False)


class _Unset(TorchFunctionMode):
    """Leave tensors as they are made.

    No number is drawn; and torch is spared the second it takes to learn drawing on `meta`.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if named.get("out") is not None:
            return named["out"]
        in_place = func.__name__.endswith("_") and not func.__name__.endswith("__")
        return (*args, named.get("tensor"))[0] if in_place else func(*args, **named)


def _check_shapes(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless both have the same tensors, in shape and type."""
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            raise ValueError(f"there is no {name}")
        if name not in wanted:
            raise ValueError(f"{name} is none of its weights")
        if found[name].shape != wanted[name].shape or found[name].dtype != wanted[name].dtype:
            raise ValueError(
                f"{name} is {found[name].dtype} {tuple(found[name].shape)}, "
                f"not {wanted[name].dtype} {tuple(wanted[name].shape)}"
            )


def open_release(folder: Path, device: str = "cpu") -> Release:
    """Verify, load and try a built draft or a release.

    device: what the index is searched on, "cpu" or "cuda:<number>".
    Raises ReleaseError for anything amiss, a canary query that is answered otherwise included.
    """
    manifest = read_manifest(folder)
    if manifest.index is None or INDEX not in manifest.files:
        raise ReleaseError(f"{folder.name}: has no index; run: python -m index build {folder}")
    if folder.parent.name == RELEASES and folder.name != manifest.id:
        raise ReleaseError(
            f"{folder.name}: is the release {manifest.id}; a release's folder has its id for a name"
        )
    with ExitStack() as stack:
        stack.callback(os.close, hold(folder))
        with stage_of_opening("files"):
            verify_files(folder, manifest)
        with stage_of_opening("parts"):
            encoder, vectors, catalog = read_parts(folder, manifest)
        with (
            stage_of_opening("index"),
            raising_release_error(f"{folder.name}: {INDEX} cannot be used"),
        ):
            index = read_index(folder / INDEX, vectors, manifest.index.spec, device)
        retriever = Retriever(catalog, encoder, vectors, index, manifest.encoder.history_length)
        with stage_of_opening("canaries"):
            try_canaries(folder, retriever, manifest.canaries)
        release = Release(manifest, retriever)
        weakref.finalize(release, stack.pop_all().close)
    return release


# --- holding: a release in use is not deleted ---

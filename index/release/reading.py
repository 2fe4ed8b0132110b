"""Reading: load the parts of a draft or release, open it as a Retriever.

A folder is trusted only after sizes, hashes, shapes and canary queries were checked. Any fault is a
ReleaseError of one sentence.
"""

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from index.ann.blocks import blocks
from index.ann.engine import Engine
from index.ann.gpu import GpuIndex
from index.ann.index import read_index
from index.ann.kernel_choice import AUTO, find_kernel
from index.ann.kernels import Kernel
from index.ann.spec import IndexSpec
from index.encoders import Encoder, build_encoder
from index.release.attributes import read_attributes
from index.release.canaries import check_canaries
from index.release.catalog import read_catalog
from index.release.errors import ReleaseError, as_release_error, opening_stage
from index.release.lock import acquire_shared_lock
from index.release.manifest import (
    ATTRIBUTES,
    CATALOG,
    CURRENT,
    ENCODER,
    INDEX,
    MANIFEST,
    NEW_ITEM_ATTRIBUTES,
    NEW_ITEM_DETAILS,
    NEW_ITEMS,
    RELEASES,
    TEXT_MODEL,
    VECTORS,
    EncoderSpec,
    Manifest,
    is_release_id,
    read_manifest,
)
from index.release.new_items import NewItems, read_new_items
from index.release.served_search import ServedSearch, serve_faster
from index.release.text_model import read_text_model
from index.release.verification import verifying
from index.retrieval.catalog import Catalog
from index.retrieval.retriever import Retriever
from index.retrieval.search import ItemIndex
from index.retrieval.text_model import TextModel

_CURRENT_LIMIT_BYTES = 1 << 10
_OPTIONAL = {ATTRIBUTES, NEW_ITEMS, NEW_ITEM_DETAILS, NEW_ITEM_ATTRIBUTES, TEXT_MODEL}


@dataclass(frozen=True)
class Release:
    """An opened release: everything needed to answer queries.

    new_items: those that it does not know, which may be announced. text_model: makes vectors of
    further ones.

    While an object that open_release returned lives, `prune` does not delete its release.
    """

    manifest: Manifest
    retriever: Retriever
    search: ServedSearch
    new_items: NewItems | None = None
    text_model: TextModel | None = None

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def searches_elsewhere(self) -> bool:
        """Whether Milvus or a GPU searches, for which an event loop should not wait."""
        return self.search.kind == "milvus" or isinstance(self.retriever.index, GpuIndex)


def read_current(root: Path) -> str | None:
    """The id of the release to serve; None before the first is published.

    Raises ReleaseError if `current` cannot be read or does not hold a valid id.
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
            f"{root / CURRENT}: holds {text!r}, not a release id; rollback --to a release"
        )
    return text


def read_parts(
    folder: Path, manifest: Manifest, device: str = "cpu"
) -> tuple[Encoder, NDArray[np.float32], Catalog]:
    """Encoder, vectors and catalogue of a verified folder.

    device: of an encoder that torch computes; the others are for the CPU.
    Raises ReleaseError if one cannot be read, or their sizes or dimensions disagree.
    """
    with as_release_error(f"{folder.name}: {CATALOG} cannot be used"):
        catalog = read_catalog(folder / CATALOG, with_titles=False)
        if ATTRIBUTES in manifest.files:
            catalog = replace(catalog, attributes=read_attributes(folder / ATTRIBUTES))
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
    return encoder.to(device) if encoder.uses_gpu else encoder, vectors, catalog


def _read_vectors(folder: Path) -> NDArray[np.float32]:
    with as_release_error(f"{folder.name}: {VECTORS} cannot be used"):
        vectors: NDArray[np.float32] = np.lib.format.open_memmap(folder / VECTORS, mode="r")
    if vectors.ndim != 2 or vectors.dtype != np.float32 or not vectors.flags.c_contiguous:
        raise ReleaseError(
            f"{folder.name}: {VECTORS} is {vectors.dtype} of shape {vectors.shape}; "
            "float32 (N + 1, D) in C order is needed"
        )
    if len(vectors) == 0 or vectors[0].any():
        raise ReleaseError(f"{folder.name}: {VECTORS} has no row 0 of zeros; train again")
    if not all(np.isfinite(vectors[block]).all() for block in blocks(len(vectors))):
        raise ReleaseError(f"{folder.name}: {VECTORS} has values that are not finite; train again")
    return vectors


def _read_encoder(folder: Path, spec: EncoderSpec) -> Encoder:
    with as_release_error(f"{folder.name}: {ENCODER} does not fit the encoder of the manifest"):
        with torch.device("meta"), _SkipInitialization():  # takes no memory, whatever the arguments
            encoder = build_encoder(spec.name, spec.arguments)
        # Cloned: the file is memory-mapped, and its tensors are not aligned.
        weights = {name: tensor.clone() for name, tensor in load_file(folder / ENCODER).items()}
        _check_shapes(encoder.state_dict(), weights)
        encoder.load_state_dict(weights, assign=True)
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise ReleaseError(f"{folder.name}: {ENCODER} has weights that are not finite; train again")
    return encoder.eval().requires_grad_(False)


def _read_words(
    folder: Path, manifest: Manifest, encoder: Encoder
) -> tuple[NewItems | None, TextModel | None]:
    """What was made of items' words; None for what the release does not have."""
    new_items = text_model = None
    if NEW_ITEMS in manifest.files:
        with as_release_error(f"{folder.name}: {NEW_ITEMS} cannot be used"):
            new_items = read_new_items(folder, manifest.files, encoder.dim)
    if TEXT_MODEL in manifest.files:
        with as_release_error(f"{folder.name}: {TEXT_MODEL} cannot be used"):
            text_model = read_text_model(folder / TEXT_MODEL, encoder.dim, encoder.content)
    return new_items, text_model


class _SkipInitialization(TorchFunctionMode):
    """Skip the initialization of new tensors, in place or by random functions.

    No random number is drawn, and torch does not load its random functions for the device `meta`,
    which takes a second, and libraries that the server image lacks.
    """

    _RANDOM = (torch.rand, torch.randn)

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
        if func in self._RANDOM:
            named.pop("generator", None)
            return torch.empty(*args, **named)
        in_place = func.__name__.endswith("_") and not func.__name__.endswith("__")
        return (*args, named.get("tensor"))[0] if in_place else func(*args, **named)


def _check_shapes(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless both have the same tensors, with equal shapes and types."""
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            raise ValueError(f"there is no {name}")
        if name not in expected:
            raise ValueError(f"{name} is not one of its weights")
        if actual[name].shape != expected[name].shape or actual[name].dtype != expected[name].dtype:
            raise ValueError(
                f"{name} is {actual[name].dtype} {tuple(actual[name].shape)}, "
                f"not {expected[name].dtype} {tuple(expected[name].shape)}"
            )


def _open_index(
    folder: Path,
    spec: IndexSpec,
    vectors: NDArray[np.float32],
    by: tuple[str, Kernel, Engine | None],
) -> ItemIndex:
    """by: device and kernel of an index in a file, and the engine of another."""
    device, kernel, engine = by
    if spec.milvus is None:
        return read_index(folder / INDEX, vectors, spec, device, kernel)
    if engine is None:
        raise ValueError("it is in Milvus: give --engine milvus and --engine-uri")
    return engine.open(spec.milvus, vectors)


def open_release(
    folder: Path, device: str = "cpu", kernel: str = AUTO, engine: Engine | None = None
) -> Release:
    """Verify and load a built draft or a release, and check its answers to its canary queries.

    device: of the index, and of an encoder that torch computes: "cpu" or "cuda:<number>".
    kernel: of products on the CPU, by name; "auto" is the fastest here. If the index was tuned with
    another one, or elsewhere, and exact search is faster here, that is served.
    engine: opens an index that is not in a file.
    Raises ReleaseError for any fault, different answers to the canary queries included.
    """
    manifest = read_manifest(folder)
    if manifest.index is None or (INDEX not in manifest.files and not manifest.index.spec.milvus):
        raise ReleaseError(f"{folder.name}: has no index; run: python -m index build {folder}")
    if folder.parent.name == RELEASES and folder.name != manifest.id:
        raise ReleaseError(
            f"{folder.name}: is the release {manifest.id}; the folder must have the release's name"
        )
    with ExitStack() as stack:
        stack.callback(os.close, acquire_shared_lock(folder))
        with verifying(folder, manifest) as files:
            files.wait(CATALOG, ENCODER, *(_OPTIONAL & manifest.files.keys()))
            with opening_stage("parts"):
                encoder, vectors, catalog = read_parts(folder, manifest, device)
                of_words = _read_words(folder, manifest, encoder)
            files.wait(*({INDEX} & manifest.files.keys()))
            with (
                opening_stage("index"),
                as_release_error(f"{folder.name}: {INDEX} cannot be used"),
            ):
                found = find_kernel(kernel)
                index = _open_index(folder, manifest.index.spec, vectors, (device, found, engine))
        length = manifest.encoder.history_length
        retriever = Retriever(catalog, encoder, vectors, index, length, manifest.exclude_seen)
        with opening_stage("canaries"):
            check_canaries(folder, retriever, manifest.canaries)
        retriever, search = serve_faster(manifest.index, retriever, found, manifest.canaries)
        release = Release(manifest, retriever, search, *of_words)
        weakref.finalize(release, stack.pop_all().close)
    return release

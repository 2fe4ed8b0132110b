"""Writing the files of a draft, except its manifest: weights, arrays and catalogue."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from index.encoders import Encoder
from index.release.attributes import write_attributes
from index.release.catalog import write_catalog
from index.release.manifest import (
    ATTRIBUTES,
    CATALOG,
    ENCODER,
    INTERESTS,
    VECTORS,
    FileDigest,
    digest,
)
from index.retrieval.catalog import Catalog


def write_parts(
    folder: Path,
    encoder: Encoder,
    vectors: NDArray[np.float32],
    catalog: Catalog,
    interests: NDArray[np.float32],
) -> Mapping[str, FileDigest]:
    """Write the results of training into a folder, and return the digests for the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / ENCODER, encoder.state_dict())
    _write_array(folder / VECTORS, vectors)
    _write_array(folder / INTERESTS, interests)
    write_catalog(folder / CATALOG, catalog)
    names = [ENCODER, VECTORS, INTERESTS, CATALOG]
    if catalog.attributes:
        write_attributes(folder / ATTRIBUTES, catalog.attributes)
        names.append(ATTRIBUTES)
    return {name: digest(folder / name) for name in names}


def _write_array(path: Path, array: NDArray[np.float32]) -> None:
    try:
        np.save(path, array, allow_pickle=False)
    except OSError as error:  # numpy's message does not name the file
        raise OSError(f"{path}: cannot be written ({error}); free space on the disk") from error


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file. Raises OSError, and leaves no file, if the disk is full."""
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    except SafetensorError as error:
        path.unlink(missing_ok=True)
        raise OSError(f"{path.name}: {error}; free space on the disk, then try again") from error

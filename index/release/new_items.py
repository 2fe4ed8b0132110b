"""Vectors of items that a release does not know, as a safetensors file with their ids as metadata.

Training has made them from the items' words: see training.fitting.content_model.
"""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from index.retrieval.delta import Delta


def write_new_items(path: Path, items: Delta) -> None:
    """Raises OSError, and leaves no file, if the disk is full."""
    try:
        save_file({"vectors": items.vectors}, path, {"ids": json.dumps([*items.ids])})
    except SafetensorError as error:
        path.unlink(missing_ok=True)
        raise OSError(f"{path.name}: {error}; free space on the disk, then try again") from error


def read_new_items(path: Path, dim: int) -> Delta:
    """dim: of the release's vectors. Raises ValueError if they do not fit, or SafetensorError."""
    with safe_open(path, "numpy") as file:
        ids = json.loads((file.metadata() or {})["ids"])
        vectors = file.get_tensor("vectors")
    if vectors.shape != (len(ids), dim) or vectors.dtype != np.float32:
        raise ValueError(f"{vectors.dtype} {vectors.shape}, not float32 {(len(ids), dim)}")
    if not np.isfinite(vectors).all():
        raise ValueError("values that are not finite")
    return Delta(ids, vectors)

"""The model of items' words as a safetensors file, with the words as metadata."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from index.release.manifest import TEXT_MODEL, FileDigest, digest
from index.retrieval.text_model import TextModel

_TENSORS = ("idf", "weights", "intercept", "terms")


def write_text_model(folder: Path, model: TextModel) -> Mapping[str, FileDigest]:
    """Write it into the folder of a draft, and return its digest for the manifest.

    Raises OSError, and leaves no file, if the disk is full.
    """
    path = folder / TEXT_MODEL
    tensors = {name: np.ascontiguousarray(getattr(model, name)) for name in _TENSORS}
    tensors["norm"] = np.array([model.norm], np.float32)
    words = json.dumps(sorted(model.words, key=model.words.__getitem__), ensure_ascii=False)
    try:
        save_file(tensors, path, {"words": words})
    except SafetensorError as error:
        path.unlink(missing_ok=True)
        raise OSError(f"{path.name}: {error}; free space on the disk, then try again") from error
    return {TEXT_MODEL: digest(path)}


def read_text_model(path: Path, dim: int, content: int) -> TextModel:
    """dim: of the release's vectors, D. content: C of them.

    Raises ValueError if it does not fit, or SafetensorError.
    """
    with safe_open(path, "numpy") as file:
        words = json.loads((file.metadata() or {})["words"])
        tensors = {name: file.get_tensor(name) for name in (*_TENSORS, "norm")}
    shapes = {
        "idf": (len(words),),
        "weights": (len(words), content),
        "intercept": (content,),
        "terms": (dim - content,),
        "norm": (1,),
    }
    for name, tensor in tensors.items():
        if tensor.shape != shapes[name] or tensor.dtype != np.float32:
            raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, not float32 {shapes[name]}")
        if not np.isfinite(tensor).all():
            raise ValueError(f"{name} has values that are not finite")
    [norm] = tensors.pop("norm").tolist()
    return TextModel({word: at for at, word in enumerate(words)}, norm=norm, **tensors)

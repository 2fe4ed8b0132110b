"""The index over item vectors: of what kind, how it is built, written, read and searched.

faiss is known here and in the siblings index/ann_*.py, and nowhere else.
"""

from pathlib import Path
from threading import Lock

from index.ann.spec import IndexSpec
from index.retrieval.search import ItemIndex

import torch as _torch  # noqa: F401  # isort: skip  (before faiss)
import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann.flat import FlatIndex
from index.ann.gpu import GpuIndex, cloner
from index.ann.ivf import IvfIndex

_READING = Lock()  # faiss's limits are global


def read_index(
    path: Path, vectors: NDArray[np.float32], spec: IndexSpec, device: str = "cpu"
) -> ItemIndex:
    """The index that was built over these vectors with this spec. The file is memory-mapped.

    device: "cpu" or "cuda:<number>".
    Raises ValueError or RuntimeError if the file is damaged or of other vectors or another spec,
    or the device is not there.
    """
    clone = None if device == "cpu" else cloner(device)
    index = _read_mapped(path, _least_bytes(vectors, spec))
    _check(index, vectors, spec)
    host: FlatIndex | IvfIndex
    if isinstance(index, faiss.IndexIVF):
        host = IvfIndex(index, vectors, spec.margin, check=True)
        host.exact()  # now, and not while somebody waits for an answer
    else:
        _check_vectors(index, vectors)
        host = FlatIndex(vectors)
    return host if clone is None else GpuIndex(host, vectors, spec.probes, clone)


def _least_bytes(vectors: NDArray[np.float32], spec: IndexSpec) -> int:
    """What a file of these vectors takes, but for some of its headers."""
    items, dim = len(vectors) - 1, vectors.shape[1]
    flat = 45 + 4 * items * dim
    listed = items - min(spec.head, items)
    lists = 90 + 4 * min(spec.lists, items) * dim + (2 * dim + 8) * listed
    return int(flat if spec.kind == "flat" else lists)


def _read_mapped(path: Path, least_bytes: int) -> faiss.Index:
    size_bytes = path.stat().st_size
    if size_bytes < least_bytes:  # faiss would read past the end of what is mapped, and crash
        raise ValueError(f"{size_bytes:,} bytes, at least {least_bytes:,} are needed")
    with _READING:
        faiss.set_deserialization_vector_byte_limit(size_bytes)
        faiss.set_deserialization_loop_limit(size_bytes)
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


def _check(index: faiss.Index, vectors: NDArray[np.float32], spec: IndexSpec) -> None:
    items, dim = len(vectors) - 1, vectors.shape[1]
    needed: dict[str, object] = {
        "kind": faiss.IndexFlatIP if spec.kind == "flat" else faiss.IndexIVFScalarQuantizer,
        "metric": faiss.METRIC_INNER_PRODUCT,
        "dimension": dim,
        "items": items - (min(spec.head, items) if spec.kind == "ivf" else 0),
        "trained": True,
    }
    found: dict[str, object] = {
        "kind": type(index),
        "metric": index.metric_type,
        "dimension": index.d,
        "items": index.ntotal,
        "trained": index.is_trained,
    }
    if isinstance(index, faiss.IndexIVFScalarQuantizer):
        needed["lists"], found["lists"] = min(spec.lists, items), index.nlist
        needed["codec"], found["codec"] = faiss.ScalarQuantizer.QT_fp16, index.sq.qtype
        needed["residuals"], found["residuals"] = False, index.by_residual
        needed["means"], found["means"] = min(spec.lists, items), index.quantizer.ntotal
    wrong = [name for name in needed if found[name] != needed[name]]
    if wrong:
        raise ValueError(
            ", ".join(f"{name}: {found[name]} found, {needed[name]} needed" for name in wrong)
        )


def _check_vectors(index: faiss.Index, vectors: NDArray[np.float32]) -> None:
    assert isinstance(index, faiss.IndexFlatIP), "its kind was checked; this is a bug"
    held = faiss.rev_swig_ptr(index.get_xb(), vectors[1:].size)
    if not np.array_equal(held, vectors[1:].ravel()):
        raise ValueError("vectors: others than those of the release; build the index again")

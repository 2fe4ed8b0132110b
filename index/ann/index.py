"""Reading an index file and checking it against its vectors and spec.

faiss is imported in index/ann/ only.
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
from index.ann.gpu import GpuIndex, make_cloner
from index.ann.ivf import IvfIndex
from index.ann.kernels import Kernel
from index.ann.list_codec import CODECS

_CHECKED_ITEMS = 1 << 20  # at least so many are compared with what lists hold of them
_READ_LOCK = Lock()  # faiss's limits are global


def read_index(
    path: Path,
    vectors: NDArray[np.float32],
    spec: IndexSpec,
    device: str = "cpu",
    kernel: Kernel | None = None,
    check_all: bool = False,
) -> ItemIndex:
    """The index that was built over these vectors with this spec. The file is memory-mapped.

    device: "cpu" or "cuda:<number>". kernel: of its products on the CPU; by default the fastest.
    check_all: compare all lists with the vectors; else, of many items, a part of the lists, as
    reading them all takes long, and the hash of the file has told of damage.
    Raises ValueError or RuntimeError if the file is damaged or has other vectors or another spec,
    or the device does not exist.
    """
    clone = None if device == "cpu" else make_cloner(device)
    index = _read_mapped(path, _min_file_bytes(vectors, spec))
    _check_parameters(index, vectors, spec)
    cpu_index: FlatIndex | IvfIndex
    if isinstance(index, faiss.IndexIVF):
        check = 1 if check_all else max(1, len(vectors) // _CHECKED_ITEMS)
        cpu_index = IvfIndex(index, vectors, spec.margin, check, kernel)
        cpu_index.exact()  # built now, so that no request waits for it
    else:
        _check_vectors(index, vectors)
        cpu_index = FlatIndex(vectors, kernel)
    return cpu_index if clone is None else GpuIndex(cpu_index, vectors, spec.probes, clone)


def _min_file_bytes(vectors: NDArray[np.float32], spec: IndexSpec) -> int:
    """Size of a file of these vectors, without some of its headers."""
    items, dim = len(vectors) - 1, vectors.shape[1]
    flat = 45 + 4 * items * dim
    listed = items - min(spec.head, items)
    lists = 90 + 4 * min(spec.lists, items) * dim + (dim + 8) * listed
    return int(flat if spec.kind == "flat" else lists)


def _read_mapped(path: Path, min_bytes: int) -> faiss.Index:
    size_bytes = path.stat().st_size
    if size_bytes < min_bytes:  # faiss would read past the end of the mapping, and crash
        raise ValueError(f"{size_bytes:,} bytes, at least {min_bytes:,} are needed")
    with _READ_LOCK:
        faiss.set_deserialization_vector_byte_limit(size_bytes)
        faiss.set_deserialization_loop_limit(size_bytes)
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


def _check_parameters(index: faiss.Index, vectors: NDArray[np.float32], spec: IndexSpec) -> None:
    items, dim = len(vectors) - 1, vectors.shape[1]
    expected: dict[str, object] = {
        "kind": faiss.IndexFlatIP if spec.kind == "flat" else faiss.IndexIVFScalarQuantizer,
        "metric": faiss.METRIC_INNER_PRODUCT,
        "dimension": dim,
        "items": items - (min(spec.head, items) if spec.kind == "ivf" else 0),
        "trained": True,
    }
    actual: dict[str, object] = {
        "kind": type(index),
        "metric": index.metric_type,
        "dimension": index.d,
        "items": index.ntotal,
        "trained": index.is_trained,
    }
    if isinstance(index, faiss.IndexIVFScalarQuantizer):
        expected["lists"], actual["lists"] = min(spec.lists, items), index.nlist
        expected["codec"], actual["codec"] = True, index.sq.qtype in CODECS
        expected["residuals"], actual["residuals"] = False, index.by_residual
        expected["means"], actual["means"] = min(spec.lists, items), index.quantizer.ntotal
    wrong = [name for name in expected if actual[name] != expected[name]]
    if wrong:
        raise ValueError(
            ", ".join(f"{name}: {actual[name]} found, {expected[name]} needed" for name in wrong)
        )


def _check_vectors(index: faiss.Index, vectors: NDArray[np.float32]) -> None:
    assert isinstance(index, faiss.IndexFlatIP), "the kind was checked; this is a bug"
    stored = faiss.rev_swig_ptr(index.get_xb(), vectors[1:].size)
    if not np.array_equal(stored, vectors[1:].ravel()):
        raise ValueError("vectors: not those of the release; build the index again")

"""The indexes on a GPU, for batches: there every interest probes equally many lists."""

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann_flat import FlatIndex, score
from index.ann_ivf import IvfIndex
from index.merge import Hits, stack

LIMIT = 2048  # of k and of lists probed, in faiss's kernels

Clone = Callable[[faiss.Index], faiss.Index]


def cloner(device: str) -> Clone:
    """What copies an index to the GPU that device, "cuda:<number>", names.

    Raises ValueError if there is none.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or not number.isdecimal():
        raise ValueError(f"device: {device!r}, cpu or cuda:<number> are known; name one of them")
    found = faiss.get_num_gpus()
    if int(number) >= found:
        raise ValueError(
            f"device: {device}, but faiss sees {found} GPUs; install the extra `gpu` in place of "
            "`cpu` on a machine that has one, or use the device cpu"
        )
    resources = faiss.StandardGpuResources()
    return lambda index: faiss.index_cpu_to_gpu(resources, int(number), index)


def rehearse(host: FlatIndex | IvfIndex, vectors: NDArray[np.float32], probes: int) -> "GpuIndex":
    """What a GPU would answer, but computed on the processor."""
    return GpuIndex(host, vectors, probes, faiss.clone_index)


class GpuIndex:
    """One index on a GPU. Threads take turns: faiss's GPU indexes bear one at a time."""

    def __init__(
        self,
        host: FlatIndex | IvfIndex,
        vectors: NDArray[np.float32],
        probes: int,
        clone: Clone,
    ) -> None:
        """host: the same index on the processor; it writes, and answers what is beyond LIMIT.

        probes: lists probed for each interest.
        """
        self._host = host
        self._vectors = np.asarray(vectors)
        self._lock = Lock()
        searched: Any = clone(host.faiss_index)
        if isinstance(host, FlatIndex):
            self._parts = [(searched, np.arange(1, len(vectors)))]
        else:
            searched.nprobe = min(probes, LIMIT, host.faiss_index.nlist)
            self._parts = [(searched, np.arange(len(vectors)))]
            if len(host.head):
                head = faiss.IndexFlatIP(vectors.shape[1])
                head.add(self._vectors[host.head])
                self._parts.append((clone(head), host.head))

    def search(self, interests: NDArray[np.float32], k: int) -> Hits:
        if k > LIMIT:
            return self._host.search(interests, k)
        queries = np.ascontiguousarray(interests.reshape(-1, interests.shape[2]))
        with self._lock:
            found = [(part.search(queries, k)[1], rows) for part, rows in self._parts]
        places = [np.where(at < 0, 0, rows.take(at, mode="clip")) for at, rows in found]
        rows = np.concatenate([p.reshape(len(interests), -1) for p in places], axis=1)
        return stack(
            [
                score(self._vectors, np.unique(line[line > 0]), request)
                for line, request in zip(rows, interests, strict=True)
            ]
        )

    def write(self, path: Path) -> None:
        self._host.write(path)

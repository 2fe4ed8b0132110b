"""The indexes on a GPU, for batches: there every interest probes equally many lists."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import torch as _torch  # noqa: F401  # isort: skip  (before faiss)
import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann.flat import FlatIndex, score
from index.ann.ivf import IvfIndex
from index.ann.spec import LIMIT
from index.retrieval.filters import Filter, Filters
from index.retrieval.merge import Hits, QueryHits, stack_hits

_SPARE = 64  # hits more than twice those wanted, where a filter may drop some

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

    def search(self, interests: NDArray[np.float32], k: int, filters: Filters = None) -> Hits:
        """The kernels know of no filters: they look deeper, and if that is too little, the host."""
        return stack_hits([*self.iter_search(interests, k, filters)])

    def iter_search(
        self, interests: NDArray[np.float32], k: int, filters: Filters = None
    ) -> Iterator[QueryHits]:
        if k > LIMIT:
            yield from self._host.iter_search(interests, k, filters)
            return
        asked = filters or [None] * len(interests)
        depth = min(2 * k + _SPARE, LIMIT) if any(asked) else k
        queries = np.ascontiguousarray(interests.reshape(-1, interests.shape[2]))
        with self._lock:
            found = [(part.search(queries, depth)[1], rows) for part, rows in self._parts]
        places = [np.where(at < 0, 0, rows.take(at, mode="clip")) for at, rows in found]
        rows = np.concatenate([p.reshape(len(interests), -1) for p in places], axis=1)
        for request, line, allowed in zip(interests, rows, asked, strict=True):
            yield self._answer(request, np.unique(line[line > 0]), allowed, depth, k)

    def _answer(
        self,
        interests: NDArray[np.float32],
        rows: NDArray[np.int64],
        allowed: Filter | None,
        depth: int,
        k: int,
    ) -> QueryHits:
        """rows: among which the `depth` best of all items are."""
        line = score(self._vectors, rows, interests)
        if not allowed:
            return line
        left = _left(line, depth, allowed)
        if len(left[0]) >= k:
            return left
        [exact] = self._host.iter_search(interests[None], k, [allowed])
        return exact

    def write(self, path: Path) -> None:
        self._host.write(path)


def _left(line: QueryHits, depth: int, allowed: Filter) -> QueryHits:
    """What is allowed of the `depth` best of a line."""
    rows, scores, interests = line
    # Of several that are as good as the last of them, some may not have been found.
    last = np.partition(scores, -depth)[-depth] if len(scores) > depth else -np.inf
    struck = scores.copy()
    allowed.mask_scores(struck, rows)
    left = np.flatnonzero(struck > last)
    return rows.take(left), scores.take(left), interests.take(left)

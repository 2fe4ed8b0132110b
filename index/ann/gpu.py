"""The indexes on a GPU, for batches: each interest probes the same number of lists."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import torch as _torch  # noqa: F401  # isort: skip  (before faiss)
import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann.flat import FlatIndex
from index.ann.ivf import IvfIndex
from index.ann.selection import score_rows
from index.ann.spec import GPU_LIMIT
from index.retrieval.filters import Filter, Filters
from index.retrieval.merge import Hits, QueryHits, stack_hits

_EXTRA_DEPTH = 64  # hits beyond twice k that are fetched when a filter may drop some

Clone = Callable[[faiss.Index], faiss.Index]


def make_cloner(device: str) -> Clone:
    """A function that copies an index to the GPU that device, "cuda:<number>", names.

    Raises ValueError if there is no such GPU.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or not number.isdecimal():
        raise ValueError(f"device: {device!r}, cpu or cuda:<number> are known; name one of them")
    count = faiss.get_num_gpus()
    if int(number) >= count:
        raise ValueError(
            f"device: {device}, but faiss sees {count} GPUs; install the extra `gpu` in place of "
            "`cpu` on a machine that has one, or use the device cpu"
        )
    resources = faiss.StandardGpuResources()
    return lambda index: faiss.index_cpu_to_gpu(resources, int(number), index)


def emulate_gpu(
    cpu_index: FlatIndex | IvfIndex, vectors: NDArray[np.float32], probes: int
) -> "GpuIndex":
    """An index with the answers of a GPU, computed on the CPU."""
    return GpuIndex(cpu_index, vectors, probes, lambda index: index)


class GpuIndex:
    """An index on a GPU. A lock serialises threads: faiss's GPU indexes allow one at a time."""

    def __init__(
        self,
        cpu_index: FlatIndex | IvfIndex,
        vectors: NDArray[np.float32],
        probes: int,
        clone: Clone,
    ) -> None:
        """cpu_index: the same index on the CPU; used to write, and to search beyond GPU_LIMIT.

        probes: lists probed for each interest.
        """
        self._cpu_index = cpu_index
        self._vectors = np.asarray(vectors)
        self._lock = Lock()
        # Each part with the row of each of its ids.
        if isinstance(cpu_index, FlatIndex):
            self._parts = [(clone(cpu_index.faiss_index), np.arange(1, len(vectors)))]
        else:
            lists: Any = clone(cpu_index.half_precision_lists())
            self._parts = [(lists, np.arange(len(vectors)))]
            self.set_probes(probes)
            if len(cpu_index.head):
                head = faiss.IndexFlatIP(vectors.shape[1])
                head.add(self._vectors[cpu_index.head])
                self._parts.append((clone(head), cpu_index.head))

    def set_probes(self, probes: int) -> None:
        """Lists probed for each interest from now on."""
        lists: Any = self._parts[0][0]
        lists.nprobe = min(probes, GPU_LIMIT, lists.nlist)

    def search(self, interests: NDArray[np.float32], k: int, filters: Filters = None) -> Hits:
        """GPU kernels know no filters: they fetch more hits; if too few pass, the CPU searches."""
        return stack_hits([*self.iter_search(interests, k, filters)])

    def iter_search(
        self, interests: NDArray[np.float32], k: int, filters: Filters = None
    ) -> Iterator[QueryHits]:
        if k > GPU_LIMIT:
            yield from self._cpu_index.iter_search(interests, k, filters)
            return
        filters = filters or [None] * len(interests)
        depth = min(2 * k + _EXTRA_DEPTH, GPU_LIMIT) if any(filters) else k
        queries = np.ascontiguousarray(interests.reshape(-1, interests.shape[2]))
        with self._lock:
            results = [(part.search(queries, depth)[1], rows) for part, rows in self._parts]
        found = [np.where(ids < 0, 0, rows.take(ids, mode="clip")) for ids, rows in results]
        rows = np.concatenate([part.reshape(len(interests), -1) for part in found], axis=1)
        for request, candidates, allowed in zip(interests, rows, filters, strict=True):
            yield self._rank(request, np.unique(candidates[candidates > 0]), allowed, depth, k)

    def _rank(
        self,
        interests: NDArray[np.float32],
        rows: NDArray[np.int64],
        allowed: Filter | None,
        depth: int,
        k: int,
    ) -> QueryHits:
        """rows: candidates that include the `depth` best of all items."""
        hits = score_rows(self._vectors, rows, interests)
        if not allowed:
            return hits
        passing = _filter_hits(hits, depth, allowed)
        if len(passing[0]) >= k:
            return passing
        [exact] = self._cpu_index.iter_search(interests[None], k, [allowed])
        return exact

    def write(self, path: Path) -> None:
        self._cpu_index.write(path)


def _filter_hits(hits: QueryHits, depth: int, allowed: Filter) -> QueryHits:
    """The allowed ones of the `depth` best hits."""
    rows, scores, interests = hits
    # Of several items that tie with the last of them, some may not have been found.
    last = np.partition(scores, -depth)[-depth] if len(scores) > depth else -np.inf
    masked = scores.copy()
    allowed.mask_scores(masked, rows)
    passing = np.flatnonzero(masked > last)
    return rows.take(passing), scores.take(passing), interests.take(passing)

"""Building an index over item vectors: flat, or a head and lists by k-means."""

from typing import Any

from index.ann.spec import IndexSpec

import torch as _torch  # noqa: F401  # isort: skip  (before faiss)
import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann.blocks import blocks
from index.ann.flat import FlatIndex
from index.ann.ivf import IvfIndex
from index.ann.kernels import Kernel
from index.ann.list_codec import byte_codec, fill_lists
from index.ann.one_thread import all_processors

_KMEANS_ITERATIONS = 10
_KMEANS_VECTORS_PER_LIST = 64  # of the training sample
_KMEANS_SEED = 1
# From so many lists on, a vector's nearest centroid is looked for only among those of the coarse
# clusters of centroids that are nearest to it: the time then grows with lists^1.5, not lists^2.
_TWO_LEVELS_FROM = 4096
_COARSE_PROBES = 8
_VECTORS_PER_MANY_LISTS = 32  # then


def build_index(
    vectors: NDArray[np.float32],
    spec: IndexSpec,
    demand: NDArray[np.int64] | None = None,
    list_ids: NDArray[np.int64] | None = None,
    kernel: Kernel | None = None,
) -> FlatIndex | IvfIndex:
    """The index over vectors (N + 1, D), row 0 padding. Head and lists are cut to the N items.

    demand (N + 1,): how often each row is in the answer to a request. The head holds the items with
    the highest demand; ties, and items of unknown demand, are ordered by norm, longest first.
    list_ids (N,): the result of assign_lists, for a caller that has it already.
    kernel: of its products; by default the fastest on this processor.
    """
    if spec.kind == "flat":
        return FlatIndex(vectors, kernel)
    head = choose_head(vectors, spec.head, demand)
    if list_ids is None:
        list_ids = assign_lists(vectors, spec.lists)
    lists = build_lists(vectors, list_ids, spec.lists, head)
    return IvfIndex(lists, vectors, spec.margin, kernel=kernel)


def choose_head(
    vectors: NDArray[np.float32], size: int, demand: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """The rows (size,) of the head, the highest demand first, as of build_index."""
    items = vectors[1:]
    norms = np.sqrt(np.vecdot(items, items))
    if size <= 0 or not len(norms):
        return np.empty(0, np.int64)
    size = min(size, len(items))
    priority = np.zeros(len(items), np.int64) if demand is None else demand[1:]
    both = priority + norms / (1 + norms.max())
    # Only those that can be in it are sorted.
    candidates = np.flatnonzero(both >= np.partition(both, -size)[-size])
    order = np.lexsort((-norms.take(candidates), -priority.take(candidates)))
    return candidates.take(order[:size]) + 1


def assign_lists(vectors: NDArray[np.float32], lists: int) -> NDArray[np.int64]:
    """The list (N,) of each row of vectors (N + 1, D) but row 0: its nearest k-means centroid.

    lists: number of lists, cut to N. Where they are many, a few items get another list, whose
    centroid is nearly as near.
    """
    items = np.asarray(vectors)[1:]
    dim, lists = items.shape[1], min(lists, len(items))
    kmeans = faiss.Clustering(dim, lists)
    kmeans.niter = _KMEANS_ITERATIONS
    kmeans.seed = _KMEANS_SEED
    kmeans.min_points_per_centroid = 1
    kmeans.max_points_per_centroid = _KMEANS_VECTORS_PER_LIST
    centroids: Any = faiss.IndexFlatL2(dim)
    if lists >= _TWO_LEVELS_FROM:
        coarse = faiss.IndexFlatL2(dim)
        centroids = faiss.IndexIVFFlat(coarse, dim, round(lists**0.5))
        centroids.nprobe = _COARSE_PROBES
        kmeans.max_points_per_centroid = _VECTORS_PER_MANY_LISTS
    with all_processors():
        kmeans.train(items, centroids)
        nearest = [centroids.search(items[block], 1)[1][:, 0] for block in blocks(len(items))]
    list_ids: NDArray[np.int64] = np.concatenate(nearest)
    return np.maximum(list_ids, 0)  # -1 where the coarse clusters are all empty


def build_lists(
    vectors: NDArray[np.float32],
    list_ids: NDArray[np.int64],
    lists: int,
    head: NDArray[np.int64],
) -> faiss.IndexIVF:
    """Lists of all rows of vectors (N + 1, D) but row 0 and the head.

    list_ids (N,), lists: as of assign_lists. The quantizer holds the mean of each list's members.
    """
    items = len(vectors) - 1
    is_listed = np.ones(items, dtype=bool)
    is_listed[head - 1] = False
    rows, ids = np.flatnonzero(is_listed) + 1, list_ids[is_listed]
    means = _means(vectors, rows, ids, min(lists, items))
    return fill_lists(byte_codec(vectors, rows), means, vectors, rows, ids)


def _means(
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    list_ids: NDArray[np.int64],
    lists: int,
) -> NDArray[np.float32]:
    """Mean of each list's members (lists, D); zero for an empty list."""
    sums = np.zeros((lists, vectors.shape[1]), np.float32)
    for block in blocks(len(rows)):
        order = np.argsort(list_ids[block], kind="stable")
        present, starts = np.unique(list_ids[block].take(order), return_index=True)
        members = vectors.take(rows[block].take(order), axis=0)
        sums[present] += np.add.reduceat(members, starts)
    sizes = np.bincount(list_ids, minlength=lists)
    return sums / np.maximum(sizes, 1).astype(np.float32)[:, None]

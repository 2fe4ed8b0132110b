"""Building an index over item vectors: flat, or a head and lists by k-means."""

from index.ann.spec import IndexSpec

import torch as _torch  # noqa: F401  # isort: skip  (before faiss)
import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann.flat import FlatIndex
from index.ann.ivf import IvfIndex
from index.ann.kernels import Kernel
from index.ann.list_codec import byte_codec, fill_lists

_KMEANS_ITERATIONS = 10
_KMEANS_VECTORS_PER_LIST = 64  # of the training sample
_KMEANS_SEED = 1


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
    norms = np.linalg.norm(vectors[1:], axis=1)
    priority = norms if demand is None else demand[1:]
    head = np.lexsort((-norms, -priority))[: spec.head] + 1
    if list_ids is None:
        list_ids = assign_lists(vectors, spec.lists)
    lists = build_lists(vectors, list_ids, spec.lists, head)
    return IvfIndex(lists, vectors, spec.margin, kernel=kernel)


def assign_lists(vectors: NDArray[np.float32], lists: int) -> NDArray[np.int64]:
    """The list (N,) of each row of vectors (N + 1, D) but row 0: its nearest k-means centroid.

    lists: number of lists, cut to N.
    """
    items = vectors[1:]
    kmeans = faiss.Kmeans(
        items.shape[1],
        min(lists, len(items)),
        niter=_KMEANS_ITERATIONS,
        seed=_KMEANS_SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=_KMEANS_VECTORS_PER_LIST,
    )
    kmeans.train(items)
    return kmeans.assign(items)[1]


def build_lists(
    vectors: NDArray[np.float32],
    list_ids: NDArray[np.int64],
    lists: int,
    head: NDArray[np.int64],
) -> faiss.IndexIVF:
    """Lists of all rows of vectors (N + 1, D) but row 0 and the head.

    list_ids (N,), lists: as of assign_lists. The quantizer holds the mean of each list's members.
    """
    items = vectors[1:]
    lists = min(lists, len(items))
    is_listed = np.ones(len(items), dtype=bool)
    is_listed[head - 1] = False
    rows, ids = np.flatnonzero(is_listed) + 1, list_ids[is_listed]
    means = _means(items[is_listed], ids, lists)
    return fill_lists(byte_codec(vectors, rows), means, vectors, rows, ids)


def _means(
    members: NDArray[np.float32], list_ids: NDArray[np.int64], lists: int
) -> NDArray[np.float32]:
    """Mean of each list's members (lists, D); zero for an empty list."""
    sizes = np.bincount(list_ids, minlength=lists)
    sums = np.zeros((lists, members.shape[1]), np.float32)
    non_empty = np.flatnonzero(sizes)
    if len(non_empty):
        ordered = members[np.argsort(list_ids, kind="stable")]
        sums[non_empty] = np.add.reduceat(ordered, (np.cumsum(sizes) - sizes)[non_empty])
    return sums / np.maximum(sizes, 1).astype(np.float32)[:, None]

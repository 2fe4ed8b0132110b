"""Building an index over item vectors: flat, or a head and lists by k-means."""

from index.ann.spec import IndexSpec

import torch as _torch  # noqa: F401  # isort: skip  (before faiss)
import faiss
import numpy as np
from numpy.typing import NDArray

from index.ann.flat import FlatIndex
from index.ann.ivf import IvfIndex

_ROUNDS = 10  # of k-means
_SAMPLE = 64  # vectors a list that k-means is trained on
_SEED = 1


def build_index(
    vectors: NDArray[np.float32],
    spec: IndexSpec,
    demand: NDArray[np.int64] | None = None,
    assigned: NDArray[np.int64] | None = None,
) -> FlatIndex | IvfIndex:
    """The index over vectors (N + 1, D), row 0 padding. Head and lists are cut to the N items.

    demand (N + 1,): how often each row answers requests. The head is made of those that are wanted
    most; among equals, and where demand is not known, of the longest.
    assigned (N,): what assign_lists says, for a caller that has asked it already.
    """
    if spec.kind == "flat":
        return FlatIndex(vectors)
    norms = np.linalg.norm(vectors[1:], axis=1)
    wanted = norms if demand is None else demand[1:]
    head = np.lexsort((-norms, -wanted))[: spec.head] + 1
    if assigned is None:
        assigned = assign_lists(vectors, spec.lists)
    return IvfIndex(build_lists(vectors, assigned, spec.lists, head), vectors, spec.margin)


def assign_lists(vectors: NDArray[np.float32], lists: int) -> NDArray[np.int64]:
    """The list (N,) of each row of vectors (N + 1, D) but 0: its nearest centroid of k-means.

    lists: cut to N.
    """
    items = vectors[1:]
    kmeans = faiss.Kmeans(
        items.shape[1],
        min(lists, len(items)),
        niter=_ROUNDS,
        seed=_SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=_SAMPLE,
    )
    kmeans.train(items)
    return kmeans.assign(items)[1]


def build_lists(
    vectors: NDArray[np.float32],
    assigned: NDArray[np.int64],
    lists: int,
    head: NDArray[np.int64],
) -> faiss.IndexIVF:
    """Lists of all rows of vectors (N + 1, D) but 0 and the head's, in half precision.

    assigned (N,), lists: of assign_lists. For an interest, a list lies at the mean of its members.
    """
    items, dim = vectors[1:], vectors.shape[1]
    lists = min(lists, len(items))
    listed = np.ones(len(items), dtype=bool)
    listed[head - 1] = False
    rows, members, places = np.flatnonzero(listed) + 1, items[listed], assigned[listed]
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(_means(members, places, lists))
    # Not the residuals: their products would want the list's added.
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, dim, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    index.is_trained = True  # there is nothing to learn for half precision
    index.add_core(len(rows), faiss.swig_ptr(members), faiss.swig_ptr(rows), faiss.swig_ptr(places))
    return index


def _means(
    members: NDArray[np.float32], assigned: NDArray[np.int64], lists: int
) -> NDArray[np.float32]:
    """(lists, D): zero where a list is empty."""
    sizes = np.bincount(assigned, minlength=lists)
    sums = np.zeros((lists, members.shape[1]), np.float32)
    filled = np.flatnonzero(sizes)
    if len(filled):
        ordered = members[np.argsort(assigned, kind="stable")]
        sums[filled] = np.add.reduceat(ordered, (np.cumsum(sizes) - sizes)[filled])
    return sums / np.maximum(sizes, 1).astype(np.float32)[:, None]

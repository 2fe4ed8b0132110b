"""Other libraries that answer the requests of search.py, each with its usual settings.

A family whose library is not installed says so; the extra `bench` installs them all. Lists are by
k-means under L2 and are probed by inner product, which finds more than faiss's default at equal
time. What a library finds for each interest is merged here.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.ann.build import assign_lists
from index.retrieval.merge import Hits, merge

import faiss  # isort: skip  (after torch)

Vectors = NDArray[np.float32]
Answer = Callable[[Vectors], NDArray[np.int64]]  # interests (K, D) -> rows, best first
FEW = 20  # requests of a contender that compares every item
THREADS = 2  # of a build
_kept: list[Any] = []  # faiss does not keep what its indexes point to


@dataclass(frozen=True)
class Contender:
    """requests: how many to time it with; None for all."""

    family: str
    setting: str
    answer: Answer
    requests: int | None = None


@dataclass(frozen=True, eq=False)
class Data:
    """vectors (N + 1, D), row 0 zero; tuning, report: interests (Q, K, D) of different users."""

    name: str
    vectors: Vectors
    tuning: Vectors
    report: Vectors


@dataclass(frozen=True)
class Plan:
    """k: items wanted. wide: more settings, and rivals that take long to build."""

    k: int
    wide: bool


def merged(found: Any, scores: Any) -> NDArray[np.int64]:
    """The ranking of each interest, positions and scores (K, k) -> rows of one ranking."""
    count, k = found.shape
    rows = found.reshape(1, -1).astype(np.int64) + 1
    which = np.repeat(np.arange(count), k)
    return merge(Hits(rows, scores.reshape(1, -1), which[None])).rows[0]


# --- faiss ---


def faiss_exact(data: Data, plan: Plan) -> Iterator[Contender]:
    index = faiss.IndexFlatIP(data.vectors.shape[1])
    index.add(data.vectors[1:])
    yield Contender("faiss flat", "exact", partial(_faiss_answer, index, plan.k), FEW)


def _faiss_answer(
    index: Any, k: int, interests: Vectors, parameters: Any = None
) -> NDArray[np.int64]:
    scores, ids = index.search(interests, k, params=parameters)
    return merged(ids, scores)


@cache
def _means(lists: int, data: Data) -> Vectors:
    ids = assign_lists(data.vectors, lists)
    sums = np.zeros((lists, data.vectors.shape[1]))
    np.add.at(sums, ids, data.vectors[1:])
    return (sums / np.maximum(np.bincount(ids, minlength=lists), 1)[:, None]).astype(np.float32)


def _filled(data: Data, lists: int, make: Callable[[Any, int, int], Any]) -> Any:
    """The IVF index that `make` makes of a quantizer, D and lists, with all items."""
    means = _means(lists, data)
    dim = data.vectors.shape[1]
    nearest, probed = faiss.IndexFlatL2(dim), faiss.IndexFlatIP(dim)
    nearest.add(means)
    probed.add(means)
    index = make(nearest, dim, lists)
    items = data.vectors[1:]
    index.train(items[:: max(1, len(items) // 65536)])
    index.add(items)
    index.quantizer = probed
    _kept.append(probed)
    return index


def _probes(plan: Plan) -> tuple[int, ...]:
    return (4, 8, 16, 24, 32, 48, 64, 96, 128) if plan.wide else (8, 16, 32, 64)


def _lists(data: Data) -> int:
    return 1024 if len(data.vectors) > 100_000 else 256


def faiss_lists(data: Data, plan: Plan) -> Iterator[Contender]:
    inner_product, lists = faiss.METRIC_INNER_PRODUCT, _lists(data)
    index = _filled(data, lists, lambda q, d, n: faiss.IndexIVFFlat(q, d, n, inner_product))
    for probes in _probes(plan):
        parameters = faiss.SearchParametersIVF(nprobe=probes)
        answer = partial(_faiss_answer, index, plan.k, parameters=parameters)
        yield Contender("faiss IVFFlat", f"{lists} lists, nprobe {probes}", answer)


def faiss_fast_scan(data: Data, plan: Plan) -> Iterator[Contender]:
    def make(quantizer: Any, dim: int, lists: int) -> Any:
        return faiss.IndexIVFPQFastScan(
            quantizer, dim, lists, dim // 2, 4, faiss.METRIC_INNER_PRODUCT
        )

    yield from _refined(data, plan, "faiss IVFPQFastScan", make)


def faiss_rabitq(data: Data, plan: Plan) -> Iterator[Contender]:
    def make(quantizer: Any, dim: int, lists: int) -> Any:
        return faiss.IndexIVFRaBitQFastScan(quantizer, dim, lists, faiss.METRIC_INNER_PRODUCT)

    yield from _refined(data, plan, "faiss IVFRaBitQFastScan", make)


def _refined(
    data: Data, plan: Plan, family: str, make: Callable[[Any, int, int], Any]
) -> Iterator[Contender]:
    """With exact scores of some times k candidates of each interest."""
    lists = _lists(data)
    codes = _filled(data, lists, make)
    exact = faiss.IndexFlatIP(data.vectors.shape[1])
    exact.add(data.vectors[1:])
    index = faiss.IndexRefine(codes, exact)
    for probes, factor in itertools.product(_probes(plan), (2, 4, 8) if plan.wide else (2, 4)):
        parameters = faiss.IndexRefineSearchParameters(
            k_factor=factor, base_index_params=faiss.IVFSearchParameters(nprobe=probes)
        )
        answer = partial(_faiss_answer, index, plan.k, parameters=parameters)
        setting = f"{lists} lists, nprobe {probes}, {factor * plan.k} refined"
        yield Contender(family, setting, answer)


# --- graphs and ScaNN ---


def hnsw(data: Data, plan: Plan) -> Iterator[Contender]:
    import hnswlib

    items = data.vectors[1:]
    index = hnswlib.Index(space="ip", dim=items.shape[1])
    index.init_index(max_elements=len(items), M=16, ef_construction=100, random_seed=1)
    index.add_items(items, num_threads=THREADS)
    index.set_num_threads(1)

    def answer(width: int, interests: Vectors) -> NDArray[np.int64]:
        index.set_ef(width)
        ids, distances = index.knn_query(interests, plan.k)
        return merged(ids, 1 - distances)

    for width in (64, 96, 128, 256, 512) if plan.wide else (64, 128, 256):
        yield Contender("hnswlib", f"M 16, ef {width}", partial(answer, width))


def glass_graph(data: Data, plan: Plan) -> Iterator[Contender]:
    import glass

    items = data.vectors[1:]
    glass.set_num_threads(THREADS)
    graph = glass.Index("HNSW", "IP", "SQ8U", R=32, L=100).build(items)
    searcher = glass.Searcher(graph, items, "IP", "SQ8U")
    glass.set_num_threads(1)

    def answer(width: int, interests: Vectors) -> NDArray[np.int64]:
        searcher.set_ef(width)
        ids, _ = searcher.batch_search(interests, plan.k, 1)
        return merged(*_exact_scores(data, interests, ids.reshape(len(interests), -1)))

    for width in (64, 96, 128, 256, 512) if plan.wide else (64, 128, 256):
        yield Contender("Glass", f"HNSW 32, SQ8U, ef {width}", partial(answer, width))


def _exact_scores(data: Data, interests: Vectors, ids: NDArray[np.int64]) -> tuple[Any, Any]:
    """ids (K, k), below 0 for none, and their inner products."""
    found = np.where((ids < 0) | (ids >= len(data.vectors) - 1), -1, ids).astype(np.int64)
    vectors = data.vectors.take(found.ravel() + 1, axis=0).reshape(*found.shape, -1)
    scores = np.matmul(vectors, interests[:, :, None])[:, :, 0]
    return found, np.where(found < 0, -np.inf, scores).astype(np.float32)


def vamana(data: Data, plan: Plan) -> Iterator[Contender]:
    import svs

    half = data.vectors[1:].astype(np.float16)
    settings = svs.VamanaBuildParameters(graph_max_degree=32, window_size=64, alpha=0.95)
    index = svs.Vamana.build(settings, half, svs.DistanceType.MIP, num_threads=THREADS)
    index.num_threads = 1

    def answer(width: int, interests: Vectors) -> NDArray[np.int64]:
        index.search_window_size = width
        ids, scores = index.search(interests, plan.k)
        return merged(ids.astype(np.int64), scores)

    for width in (64, 96, 128, 256, 512) if plan.wide else (64, 128, 256):
        yield Contender("SVS", f"Vamana 32, float16, window {width}", partial(answer, width))


def ngt_graph(data: Data, plan: Plan) -> Iterator[Contender]:
    """An ANNG. The wheel searches a quantized graph (QG), but what makes one is not in it."""
    import ngtpy

    folder = tempfile.mkdtemp(prefix="ngt-") + "/index"
    ngtpy.create(folder, data.vectors.shape[1], distance_type="Inner Product")
    index = ngtpy.Index(folder)
    index.batch_insert(data.vectors[1:], num_threads=THREADS)

    def answer(epsilon: float, interests: Vectors) -> NDArray[np.int64]:
        found = [index.search(x, plan.k, epsilon, with_distance=False) for x in interests]
        ids = np.array([[*ids, *[-1] * (plan.k - len(ids))] for ids in found])
        return merged(*_exact_scores(data, interests, ids))

    for epsilon in (0.0, 0.05, 0.1, 0.2):
        yield Contender("NGT", f"ANNG, epsilon {epsilon}", partial(answer, epsilon))


def google_scann(data: Data, plan: Plan) -> Iterator[Contender]:
    """Trees of few and many leaves; with plan.wide also with spilling (SOAR)."""
    import scann

    items = data.vectors[1:]
    root = len(items) ** 0.5
    trees = [int(root * share) for share in ((0.5, 1, 1.7, 3.3) if plan.wide else (1, 1.7))]
    plans: list[tuple[int, dict[str, float]]] = [(leaves, {}) for leaves in trees]
    if plan.wide:
        plans.append((trees[1], {"soar_lambda": 1.5, "overretrieve_factor": 2.0}))
    grid = ((25, 40, 60, 100, 160), (100, 200, 400)) if plan.wide else ((40, 60, 100), (200, 400))
    for leaves, spill in plans:
        builder = scann.scann_ops_pybind.builder(items, plan.k, "dot_product").tree(
            leaves, 10, training_sample_size=min(len(items), 150_000), **spill
        )
        searcher = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(200).build()

        def answer(searcher: Any, probes: int, kept: int, interests: Vectors) -> Any:
            ids, scores = searcher.search_batched(
                interests,
                leaves_to_search=probes,
                pre_reorder_num_neighbors=kept,
                final_num_neighbors=plan.k,
            )
            return merged(ids.astype(np.int64), scores)

        for probes, kept in itertools.product(*grid):
            if probes <= leaves:
                soar = ", SOAR" if spill else ""
                setting = f"{leaves} leaves{soar}, {probes} searched, {kept} reordered"
                yield Contender("ScaNN", setting, partial(answer, searcher, probes, kept))


# In the order in which they are built. The last ones take long to build.
RIVALS: dict[str, Callable[[Data, Plan], Iterator[Contender]]] = {
    "flat": faiss_exact,
    "ivf": faiss_lists,
    "fastscan": faiss_fast_scan,
    "rabitq": faiss_rabitq,
    "scann": google_scann,
    "svs": vamana,
    "glass": glass_graph,
    "hnswlib": hnsw,
    "ngt": ngt_graph,
}
SLOW = ("glass", "ngt")

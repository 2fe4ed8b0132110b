"""Recall and latency on one core: our index, faiss's default IVF, hnswlib, ScaNN, exact search.

    python tests/benchmarks/search.py [--items 368000] [--draft DIR] [--kernel auto] [--rounds 5]

A request is K interests; its answer is one list of k items. The time of each contender includes the
merge, and its recall is that of the list, computed here from the raw vectors. Contenders are timed
in turn on the same requests. Prints a table, then one line of JSON.
"""

import argparse
import datetime
import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import torch
from numpy.typing import NDArray

from index.ann.build import assign_lists, build_index
from index.ann.flat import FlatIndex
from index.ann.ivf import IvfIndex
from index.ann.kernel_choice import AUTO, find_kernel
from index.ann.kernels import Kernel
from index.ann.spec import IndexSpec
from index.ann.tuning import tune
from index.release.manifest import INTERESTS, VECTORS
from index.retrieval.merge import Hits, merge

import faiss  # isort: skip  (after torch)
import hnswlib  # isort: skip
import scann  # isort: skip

Vectors = NDArray[np.float32]
Answer = Callable[[Vectors], NDArray[np.int64]]  # interests (K, D) -> rows, best first
RECALL = 0.96  # at which the times of our index and ScaNN are compared


@dataclass(frozen=True)
class Contender:
    family: str
    setting: str
    answer: Answer


@dataclass(frozen=True)
class Row:
    """microseconds: median over requests and rounds."""

    family: str
    setting: str
    recall: float
    microseconds: float


@dataclass(frozen=True)
class Data:
    """vectors (N + 1, D), row 0 zero; tuning, report: interests (Q, K, D) of different users."""

    name: str
    vectors: Vectors
    tuning: Vectors
    report: Vectors


# --- data ---


def synthetic(options: argparse.Namespace) -> Data:
    """Clusters of Zipf-skewed sizes, log-normal norms, interests near clusters drawn by size."""
    items, dim, requests = options.items, options.dim, options.requests
    random = np.random.default_rng(options.seed)
    middles = random.standard_normal((2000, dim))
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    share = 1 / np.arange(1, len(middles) + 1)
    share /= share.sum()

    def near(clusters: NDArray[np.int64], spread: float) -> NDArray[np.float64]:
        noise = random.standard_normal((*clusters.shape, dim)) * spread / dim**0.5
        directions = middles[clusters] + noise
        return directions / np.linalg.norm(directions, axis=-1, keepdims=True)

    vectors = near(random.choice(len(middles), items, p=share), 1.5)
    vectors *= random.lognormal(0, options.norms, (items, 1))
    users = np.stack(
        [
            random.choice(len(middles), options.interests, replace=False, p=share)
            for _ in range(2000 + requests)
        ]
    )
    asked = near(users, 1.0).astype(np.float32)
    padded = np.concatenate([np.zeros((1, dim)), vectors]).astype(np.float32)
    return Data("synthetic", padded, asked[:2000], asked[2000:])


def read_draft(draft: Path, requests: int) -> Data:
    """Trained vectors and held-out users' interests; half of the users are for the report."""
    vectors = np.load(draft / VECTORS, allow_pickle=False)
    interests = np.load(draft / INTERESTS, allow_pickle=False)
    return Data(draft.name, vectors, interests[::2], interests[1::2][:requests])


# --- contenders ---


def merged(found: Any, scores: Any) -> NDArray[np.int64]:
    """The ranking of each interest, rows and scores (K, k) -> one ranking."""
    count, k = found.shape
    which = np.repeat(np.arange(count), k)
    hits = Hits(found.reshape(1, -1).astype(np.int64), scores.reshape(1, -1), which[None])
    return merge(hits).rows[0]


def ours(data: Data, k: int, kernel: Kernel) -> Iterator[Contender]:
    def contender(setting: str, index: FlatIndex | IvfIndex) -> Contender:
        return Contender("ours", setting, lambda x: merge(index.search(x[None], k)).rows[0])

    built, measured = tune(
        data.vectors,
        data.tuning,
        RECALL,
        k,
        lambda text: print("  ", text, file=sys.stderr),
        kernel,
    )
    yield contender(f"as built for {RECALL}: {named(measured.spec)}", built)
    exact = FlatIndex(data.vectors, kernel)
    yield contender("flat", exact)
    items = len(data.vectors) - 1
    rows = merge(exact.search(data.tuning[::2], k)).rows[:, :k]
    demand = np.bincount(rows.ravel(), minlength=items + 1)
    default_lists = 2 ** round(np.log2(items**0.5))
    heads = [head for head in (1024, 2048, 4096, 8192) if head <= items // 2]
    for lists in (default_lists // 2, default_lists):
        assigned = assign_lists(data.vectors, lists)
        for head, known in itertools.product(heads, (True, False)):
            spec = IndexSpec(kind="ivf", head=head, lists=lists, probes=1)
            index = build_index(data.vectors, spec, demand if known else None, assigned, kernel)
            assert isinstance(index, IvfIndex)
            for margin in (2.5, 3.0, 3.5):
                setting = named(spec.model_copy(update={"margin": margin}))
                by = "" if known else ", longest first"
                yield contender(setting + by, index.with_margin(margin))


def named(spec: IndexSpec) -> str:
    if spec.kind == "flat":
        return "flat"
    return f"head {spec.head}, {spec.lists} lists, margin {spec.margin:g}"


def faiss_exact(data: Data, k: int) -> Iterator[Contender]:
    index = faiss.IndexFlatIP(data.vectors.shape[1])
    index.add(data.vectors[1:])

    def answer(interests: Vectors) -> NDArray[np.int64]:
        scores, ids = index.search(interests, k)
        return merged(ids + 1, scores)

    yield Contender("faiss flat", "exact", answer)


def faiss_default(data: Data, k: int) -> Iterator[Contender]:
    items, dim = data.vectors[1:], data.vectors.shape[1]
    lists = 1024 if len(items) > 100_000 else 256
    index = faiss.index_factory(dim, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(items[:: max(1, len(items) // (64 * lists))])
    index.add(items)

    def answer(interests: Vectors, probes: int) -> NDArray[np.int64]:
        index.nprobe = probes
        scores, ids = index.search(interests, k)
        return merged(ids + 1, scores)

    for probes in (8, 32, 128):
        yield Contender("faiss IVF", f"{lists} lists, nprobe {probes}", bind(answer, probes))


def bind(answer: Callable[..., NDArray[np.int64]], *settings: Any) -> Answer:
    return lambda interests: answer(interests, *settings)


def hnsw(data: Data, k: int) -> Iterator[Contender]:
    items = data.vectors[1:]
    index = hnswlib.Index(space="ip", dim=items.shape[1])
    index.init_index(max_elements=len(items), M=16, ef_construction=100, random_seed=1)
    index.add_items(items)
    index.set_num_threads(1)

    def answer(interests: Vectors, width: int) -> NDArray[np.int64]:
        index.set_ef(width)
        ids, distances = index.knn_query(interests, k)
        return merged(ids + 1, 1 - distances)

    for width in (64, 256, 512):
        yield Contender("hnswlib", f"M 16, ef {width}", bind(answer, width))


def google_scann(data: Data, k: int) -> Iterator[Contender]:
    """Trees of few and many leaves, with and without spilling (SOAR), and no tree."""
    items = data.vectors[1:]
    root = len(items) ** 0.5
    trees = [int(root * share) for share in (0.5, 1, 1.7, 3.3)]
    plans = [(leaves, {}) for leaves in trees]
    plans.append((trees[1], {"soar_lambda": 1.5, "overretrieve_factor": 2.0}))
    for leaves, spill in plans:
        builder = scann.scann_ops_pybind.builder(items, k, "dot_product").tree(
            leaves, 10, training_sample_size=min(len(items), 150_000), **spill
        )
        searcher = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(200).build()

        def answer(interests: Vectors, searcher: Any, probes: int, kept: int) -> Any:
            return merged(
                *plus_one(
                    searcher.search_batched(
                        interests,
                        leaves_to_search=probes,
                        pre_reorder_num_neighbors=kept,
                        final_num_neighbors=k,
                    )
                )
            )

        for probes, kept in itertools.product((8, 15, 25, 40, 60, 100, 160), (100, 200, 400)):
            if probes <= leaves:
                soar = ", SOAR" if spill else ""
                setting = f"{leaves} leaves{soar}, {probes} searched, {kept} reordered"
                yield Contender("ScaNN", setting, bind(answer, searcher, probes, kept))


def plus_one(found: tuple[Any, Any]) -> tuple[Any, Any]:
    ids, scores = found
    return ids.astype(np.int64) + 1, scores


FAMILIES = {
    "ours": ours,
    "scann": google_scann,
    "ivf": faiss_default,
    "flat": faiss_exact,
    "hnswlib": hnsw,
}


# --- measuring ---


def exact_answers(data: Data, k: int) -> list[NDArray[np.int64]]:
    """By brute force, without code of the contenders."""
    answers = []
    for interests in data.report:
        scores = (interests @ data.vectors[1:].T).max(axis=0)
        answers.append(np.argsort(-scores, kind="stable")[:k] + 1)
    return answers


def measure(contenders: list[Contender], data: Data, k: int, rounds: int) -> list[Row]:
    truth = exact_answers(data, k)
    recalls: list[float] = []
    for contender in contenders:
        found = [contender.answer(interests)[:k] for interests in data.report]
        recalls.append(
            float(np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)]))
        )
    seconds = np.empty((rounds, len(contenders), len(data.report)))
    for turn, (place, contender) in itertools.product(range(rounds), enumerate(contenders)):
        contender.answer(data.report[0])
        for at, interests in enumerate(data.report):
            start = time.perf_counter()
            contender.answer(interests)
            seconds[turn, place, at] = time.perf_counter() - start
    medians = np.median(seconds, axis=(0, 2)) * 1e6
    return [
        Row(c.family, c.setting, round(recall, 4), round(float(took), 1))
        for c, recall, took in zip(contenders, recalls, medians, strict=True)
    ]


def best(rows: list[Row]) -> list[Row]:
    """The Pareto front of recall and time."""
    front = []
    reached = -1.0
    for row in sorted(rows, key=lambda row: (row.microseconds, -row.recall)):
        if row.recall > reached:
            front.append(row)
            reached = row.recall
    return front


def fastest_at(rows: list[Row], family: str) -> Row | None:
    good = [row for row in rows if row.family == family and row.recall >= RECALL]
    return min(good, key=lambda row: row.microseconds, default=None)


def one_core() -> int:
    """Pin every thread of the process to its last processor, and have each library use one."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    core = max(os.sched_getaffinity(0))
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
    return core


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--items", type=int, default=368_000, help="synthetic items")
    parser.add_argument("--dim", type=int, default=64, help="synthetic dimension")
    parser.add_argument("--interests", type=int, default=8, help="synthetic interests a request")
    parser.add_argument(
        "--norms", type=float, default=0.4, help="deviation of the synthetic vectors' log norms"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    parser.add_argument("--draft", type=Path, help="a draft, whose vectors are used instead")
    parser.add_argument("--k", type=int, default=50, help="items a request asks for")
    parser.add_argument("--requests", type=int, default=300, help="requests to report on")
    parser.add_argument("--rounds", type=int, default=5, help="times each contender is timed")
    parser.add_argument(
        "--families", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="contenders"
    )
    parser.add_argument(
        "--kernel", default=AUTO, help="kernel of our index: auto, or the name of one"
    )
    parser.add_argument("--all", action="store_true", help="print all rows, not the Pareto front")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    data = read_draft(options.draft, options.requests) if options.draft else synthetic(options)
    torch.set_num_threads(1)  # as in a server, when the kernel is chosen
    kernel = find_kernel(options.kernel)
    families = {**FAMILIES, "ours": partial(ours, kernel=kernel)}
    contenders = [
        contender for family in options.families for contender in families[family](data, options.k)
    ]
    one_core()
    rows = measure(contenders, data, options.k, options.rounds)
    items, dim = len(data.vectors) - 1, data.vectors.shape[1]
    print(
        f"{data.name}: {items:,} items, D {dim}, K {data.report.shape[1]}, k {options.k}; ", end=""
    )
    print(f"{len(data.report)} requests, one core of {processor()}; kernel {kernel.name}\n")
    for family in dict.fromkeys(row.family for row in rows):
        of = [row for row in rows if row.family == family]
        for row in sorted(of, key=lambda row: row.microseconds) if options.all else best(of):
            print(f"{family:10} {row.setting:50} {row.recall:.4f} {row.microseconds:8,.0f} us")
    report(rows, data, options, kernel)


def report(rows: list[Row], data: Data, options: argparse.Namespace, kernel: Kernel) -> None:
    ours_row, scann_row = fastest_at(rows, "ours"), fastest_at(rows, "ScaNN")
    ratio = ours_row.microseconds / scann_row.microseconds if ours_row and scann_row else None
    for name, row in (("ours", ours_row), ("ScaNN", scann_row)):
        text = f"{row.microseconds:,.0f} us ({row.setting})" if row else "not reached"
        print(f"\nrecall {RECALL}, {name}: {text}", end="")
    print(f"\nours / ScaNN: {ratio:.2f}\n" if ratio else "\n")
    print(
        json.dumps(
            {
                "benchmark": "search",
                "data": data.name,
                "items": len(data.vectors) - 1,
                "dim": data.vectors.shape[1],
                "interests": data.report.shape[1],
                "k": options.k,
                "requests": len(data.report),
                "norms": None if options.draft else options.norms,
                "cpu": processor(),
                "kernel": kernel.name,
                "machine": platform.node(),
                "date": datetime.date.today().isoformat(),
                "recall": RECALL,
                "ours_us": ours_row and ours_row.microseconds,
                "scann_us": scann_row and scann_row.microseconds,
                "ratio": ratio and round(ratio, 3),
                "rows": [vars(row) for row in rows],
            }
        )
    )


if __name__ == "__main__":
    main()

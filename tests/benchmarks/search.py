"""Recall and latency on one core: our index, and what else there is (rivals.py).

    python tests/benchmarks/search.py [--items 368000] [--norms 0.4] [--kernel auto] [--all]
                                      [--draft DIR | --vectors FILE --queries FILE]

A request is K interests; its answer is one list of k items. The time of each contender includes the
merge, and its recall is that of the list, computed here from the raw vectors. Contenders are timed
in turn on the same requests; microseconds are those of the process on a processor, and of each
request the shortest counts. Where the processor has VNNI instructions, our index is also timed
without. Prints the frontier of each family, then one line of JSON with the same; --all prints every
row, tries more settings, and builds what takes long. By default it ends within five minutes.
"""

import argparse
import datetime
import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import torch
from numpy.typing import NDArray
from rivals import FEW, RIVALS, SLOW, Contender, Data, Plan

from index.ann.build import assign_lists, build_index
from index.ann.flat import FlatIndex
from index.ann.ivf import IvfIndex
from index.ann.kernel_choice import AUTO, find_kernel, is_exact
from index.ann.kernels import KERNELS, Kernel
from index.ann.processor import processor_name
from index.ann.spec import IndexSpec
from index.ann.tuning import tune
from index.release.manifest import INTERESTS, VECTORS
from index.retrieval.merge import merge

import faiss  # isort: skip  (after torch)

RECALL = 0.96  # at which times are compared
WITHOUT_VNNI = ("native-avx2", "int8-fbgemm")  # the first that works


@dataclass(frozen=True)
class Row:
    """microseconds: median over requests of the shortest of all rounds."""

    family: str
    setting: str
    recall: float
    microseconds: float


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


def read_files(vectors: Path, queries: Path, requests: int) -> Data:
    """Vectors (N + 1, D) such as a release's, and interests (Q, K, D); half are for the report."""
    interests = np.load(queries, allow_pickle=False)
    items = np.load(vectors, allow_pickle=False)
    return Data(vectors.parent.name, items, interests[::2], interests[1::2][:requests])


def read_data(options: argparse.Namespace) -> Data:
    if options.vectors:
        return read_files(options.vectors, options.queries, options.requests)
    return read_draft(options.draft, options.requests) if options.draft else synthetic(options)


# --- contenders ---


def ours(data: Data, plan: Plan, kernel: Kernel, family: str = "ours") -> Iterator[Contender]:
    def contender(setting: str, index: FlatIndex | IvfIndex) -> Contender:
        few = FEW if isinstance(index, FlatIndex) and len(data.vectors) > 100_000 else None
        return Contender(
            family, setting, lambda x: merge(index.search(x[None], plan.k)).rows[0], few
        )

    built, measured = tune(
        data.vectors,
        data.tuning if plan.wide else data.tuning[:400],
        RECALL,
        plan.k,
        lambda text: print("  ", text, file=sys.stderr),
        kernel,
    )
    yield contender(f"as built for {RECALL}: {named(measured.spec)}", built)
    exact = FlatIndex(data.vectors, kernel)
    yield contender("flat", exact)
    items = len(data.vectors) - 1
    rows = merge(exact.search(data.tuning[:500:2], 2 * plan.k)).rows[:, : 2 * plan.k]
    demand = np.bincount(rows.ravel(), minlength=items + 1)
    default_lists = 2 ** round(np.log2(items**0.5))
    heads = [head for head in (1024, 2048, 4096, 8192) if head <= items // 2]
    for lists in (default_lists, 2 * default_lists):
        assigned = assign_lists(data.vectors, lists)
        for head in heads if plan.wide else heads[1:3]:
            spec = IndexSpec(kind="ivf", head=head, lists=lists, probes=1)
            index = build_index(data.vectors, spec, demand, assigned, kernel)
            assert isinstance(index, IvfIndex)
            for margin in (2.5, 3.0, 3.25, 3.5, 4.0):
                setting = named(spec.model_copy(update={"margin": margin}))
                yield contender(setting, index.with_margin(margin))


def named(spec: IndexSpec) -> str:
    if spec.kind == "flat":
        return "flat"
    return f"head {spec.head}, {spec.lists} lists, margin {spec.margin:g}"


def all_contenders(data: Data, options: argparse.Namespace, kernel: Kernel) -> list[Contender]:
    """Those that can be built; the others are named."""
    plan = Plan(options.k, options.all)
    families = {"ours": partial(ours, kernel=kernel), **RIVALS}
    slower = [each for each in KERNELS if each.name in WITHOUT_VNNI and is_exact(each)]
    if kernel.name.endswith("vnni") and slower:
        without = partial(ours, kernel=slower[0], family="ours without VNNI")
        families["ours without VNNI"] = without
    chosen = options.families or [f for f in families if options.all or f not in SLOW]
    contenders: list[Contender] = []
    for family in chosen:
        start = time.perf_counter()
        try:
            contenders += families[family](data, plan)
        except ImportError as error:
            print(f"{family}: not installed ({error.name}); pip install '.[bench]'")
            continue
        print(f"   {family}: built in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return contenders


# --- measuring ---


def exact_answers(data: Data, k: int) -> list[NDArray[np.int64]]:
    """By brute force, without code of the contenders."""
    answers = []
    for interests in data.report:
        scores = (interests @ data.vectors[1:].T).max(axis=0)
        best = np.argpartition(-scores, k)[:k] if k < len(scores) else np.arange(len(scores))
        answers.append(best[np.argsort(-scores[best], kind="stable")] + 1)
    return answers


def measure(contenders: list[Contender], data: Data, k: int, rounds: int) -> list[Row]:
    truth = exact_answers(data, k)
    seconds = np.full((len(contenders), len(data.report)), np.inf)
    recalls = np.full(seconds.shape, np.nan)
    for _, at in itertools.product(range(rounds), range(len(data.report))):
        for place, contender in enumerate(contenders):
            if contender.requests is not None and at >= contender.requests:
                continue
            start = time.process_time()
            found = contender.answer(data.report[at])
            seconds[place, at] = min(seconds[place, at], time.process_time() - start)
            recalls[place, at] = np.isin(truth[at], found[:k]).mean()
    rows = []
    for contender, took, recall in zip(contenders, seconds, recalls, strict=True):
        median = float(np.median(took[np.isfinite(took)])) * 1e6
        mean = round(float(np.nanmean(recall)), 4)
        rows.append(Row(contender.family, contender.setting, mean, round(median, 1)))
    return rows


def frontier(rows: list[Row]) -> list[Row]:
    """Those of one family that no other of it beats in both recall and time; fastest first."""
    front = []
    reached = -1.0
    for row in sorted(rows, key=lambda row: (row.microseconds, -row.recall)):
        if row.recall > reached:
            front.append(row)
            reached = row.recall
    return front


def fastest_at(rows: list[Row], is_ours: bool) -> Row | None:
    """At the recall that is compared. Ours without VNNI is neither ours here nor a rival."""
    families = {row.family for row in rows}
    wanted = {"ours"} if is_ours else {f for f in families if not f.startswith("ours")}
    good = [row for row in rows if row.family in wanted and row.recall >= RECALL]
    return min(good, key=lambda row: row.microseconds, default=None)


def one_core() -> int:
    """Pin every thread of the process to its last processor, and have each library use one."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    core = max(os.sched_getaffinity(0))
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
    return core


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
    parser.add_argument("--vectors", type=Path, help="item_vectors.npy of a release, instead")
    parser.add_argument("--queries", type=Path, help="with --vectors: interests (Q, K, D)")
    parser.add_argument("--k", type=int, default=50, help="items a request asks for")
    parser.add_argument("--requests", type=int, default=100, help="requests to report on")
    parser.add_argument("--rounds", type=int, default=3, help="times each contender is timed")
    parser.add_argument("--families", nargs="+", choices=["ours", *RIVALS], help="contenders")
    parser.add_argument(
        "--kernel", default=AUTO, help="kernel of our index: auto, or the name of one"
    )
    parser.add_argument("--all", action="store_true", help="all rows, more settings and rivals")
    given = parser.parse_args()
    if bool(given.vectors) != bool(given.queries):
        parser.error("--vectors and --queries: give both, or neither")
    return given


def main() -> None:
    options = arguments()
    data = read_data(options)
    torch.set_num_threads(1)  # as in a server, when the kernel is chosen
    kernel = find_kernel(options.kernel)
    contenders = all_contenders(data, options, kernel)
    one_core()
    rows = measure(contenders, data, options.k, options.rounds)
    items, dim = len(data.vectors) - 1, data.vectors.shape[1]
    print(
        f"{data.name}: {items:,} items, D {dim}, K {data.report.shape[1]}, k {options.k}; "
        f"{len(data.report)} requests, one core of {processor_name()}; kernel {kernel.name}\n"
    )
    fronts: list[Row] = []
    for family in dict.fromkeys(row.family for row in rows):
        of = [row for row in rows if row.family == family]
        fronts += frontier(of)
        for row in sorted(of, key=lambda row: row.microseconds) if options.all else frontier(of):
            print(f"{family:24} {row.setting:46} {row.recall:.4f} {row.microseconds:8,.0f} us")
    report(rows if options.all else fronts, data, options, kernel)


def report(rows: list[Row], data: Data, options: argparse.Namespace, kernel: Kernel) -> None:
    ours_row, rival = fastest_at(rows, True), fastest_at(rows, False)
    ratio = ours_row.microseconds / rival.microseconds if ours_row and rival else None
    for name, row in (("ours", ours_row), ("best rival", rival)):
        where = row and f"{row.microseconds:,.0f} us ({row.family}: {row.setting})"
        print(f"\nrecall {RECALL}, {name}: {where or 'not reached'}", end="")
    print(f"\nours / best rival: {ratio:.2f}\n" if ratio else "\n")
    summary = {
        "benchmark": "search",
        "data": data.name,
        "items": len(data.vectors) - 1,
        "dim": data.vectors.shape[1],
        "interests": data.report.shape[1],
        "k": options.k,
        "requests": len(data.report),
        "norms": None if options.draft or options.vectors else options.norms,
        "cpu": processor_name(),
        "kernel": kernel.name,
        "machine": platform.node(),
        "date": datetime.date.today().isoformat(),
        "recall": RECALL,
        "ours_us": ours_row and ours_row.microseconds,
        "rival_us": rival and rival.microseconds,
        "rival": rival and rival.family,
        "ratio": ratio and round(ratio, 3),
        "all" if options.all else "frontier": [vars(row) for row in rows],
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()

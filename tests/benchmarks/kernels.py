"""Each kernel of the item search in one process: exact search, and lists.

    python tests/benchmarks/kernels.py [--items 368000] [--norms 0.4] [--requests 20] [--rounds 5]

Kernels are timed in turn on the same requests. Microseconds are CPU time, and the shortest of each
request counts, so that other load on the machine affects all alike. faiss's flat index, and torch's
integer product wherever it is right, stand beside them. Prints a table, then one line of JSON.
"""

import argparse
import datetime
import json
import os
import time
from collections.abc import Callable

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray
from search import Data, one_core, synthetic

from index.ann.build import assign_lists, build_index
from index.ann.flat import FlatIndex
from index.ann.kernel_choice import find_kernel, is_exact, measure_kernels
from index.ann.kernels import KERNELS
from index.ann.processor import processor_name
from index.ann.spec import IndexSpec
from index.retrieval.merge import merge
from index.retrieval.search import ItemIndex

import faiss  # isort: skip  (after torch)

Answer = Callable[[NDArray[np.float32]], NDArray[np.int64]]
LISTS = IndexSpec(kind="ivf", head=4096, lists=512, margin=3.0, probes=1)


def answer_of(index: ItemIndex, k: int) -> Answer:
    return lambda interests: merge(index.search(interests[None], k)).rows[0, :k]


def indexes(data: Data, k: int) -> dict[str, dict[str, Answer]]:
    """kind -> kernel -> how it answers."""
    kernels = [kernel for kernel in KERNELS if is_exact(kernel)]
    flat = {kernel.name: FlatIndex(data.vectors, kernel) for kernel in kernels}
    assigned = assign_lists(data.vectors, LISTS.lists)
    rows = merge(flat["float32"].search(data.tuning[:300], k)).rows[:, :k]
    demand = np.bincount(rows.ravel(), minlength=len(data.vectors))
    lists = {
        kernel.name: build_index(data.vectors, LISTS, demand, assigned, kernel)
        for kernel in kernels
    }
    exact = faiss.IndexFlatIP(data.vectors.shape[1])
    exact.add(data.vectors[1:])

    def faiss_flat(interests: NDArray[np.float32]) -> NDArray[np.int64]:
        scores, ids = exact.search(interests, k)
        order = np.argsort(-scores.ravel(), kind="stable")
        ranked = ids.ravel()[order] + 1
        return ranked[np.sort(np.unique(ranked, return_index=True)[1])][:k]

    return {
        "exact": {name: answer_of(index, k) for name, index in flat.items()}
        | {"faiss flat": faiss_flat},
        "lists": {name: answer_of(index, k) for name, index in lists.items()},
    }


def microseconds(answers: dict[str, Answer], requests: NDArray[np.float32], rounds: int) -> dict:
    """Median over the requests of the shortest time of each."""
    seconds = {name: np.full(len(requests), np.inf) for name in answers}
    for _ in range(rounds):
        for at, interests in enumerate(requests):
            for name, answer in answers.items():
                start = time.thread_time()
                answer(interests)
                seconds[name][at] = min(seconds[name][at], time.thread_time() - start)
    return {name: round(float(np.median(took)) * 1e6, 1) for name, took in seconds.items()}


def recalls(answers: dict[str, Answer], truth: Answer, requests: NDArray[np.float32]) -> dict:
    return {
        name: float(np.mean([np.isin(truth(x), answer(x)).mean() for x in requests[:20]]))
        for name, answer in answers.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--items", type=int, default=368_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--interests", type=int, default=8)
    parser.add_argument("--norms", type=float, default=0.4, help="deviation of the log norms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    data = synthetic(options)
    by_kind = indexes(data, options.k)
    one_core()
    timed = measure_kernels([kernel for kernel in KERNELS if is_exact(kernel)])
    choice = {k: round(s * 1e6, 1) for k, s in timed.items() if s < np.inf}
    print(f"{processor_name()}; {options.items:,} items, norms {options.norms}; chosen: ", end="")
    print(f"{find_kernel().name}\ntimed for the choice: {choice} us")
    measured = {}
    for kind, answers in by_kind.items():
        times = microseconds(answers, data.report, options.rounds)
        found = recalls(answers, by_kind["exact"]["float32"], data.report)
        measured[kind] = {n: {"us": times[n], "recall": round(found[n], 4)} for n in times}
        for name, row in measured[kind].items():
            print(f"{kind:8}{name:14}{row['us']:12,.0f} us  recall {row['recall']:.4f}")
    summary = {
        "benchmark": "kernels",
        "items": options.items,
        "norms": options.norms,
        "cpu": processor_name(),
        "date": datetime.date.today().isoformat(),
        "chosen": find_kernel().name,
        "choice_us": choice,
        "rows": measured,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()

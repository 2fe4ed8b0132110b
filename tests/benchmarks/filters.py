"""Cost of filters on one core, with an IVF and a flat index: latency and recall.

    python tests/benchmarks/filters.py [--items 368000] [--k 50] [--requests 40] [--rounds 3]

Items and interests are those of benchmarks/search.py; each item has one of a hundred categories,
and neighbours mostly share one. Requests are searched one at a time, as by an idle server.
Milliseconds are CPU time, of the mask of an attribute too: median, 95th percentile and maximum;
recall is against exact search.
Prints a table, then one line of JSON.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.append(str(Path(__file__).parent))

import numpy as np
from numpy.typing import NDArray
from search import Data, one_core, synthetic

from index.ann.build import build_index
from index.ann.flat import FlatIndex
from index.ann.kernel_choice import AUTO, find_kernel
from index.ann.processor import processor_name
from index.ann.spec import IndexSpec
from index.retrieval.attribute_filter import AttributeFilter, Condition
from index.retrieval.attributes import Numbers, RowMask, mask
from index.retrieval.filters import Categories, CategoryFilter, Filter
from index.retrieval.merge import merge
from index.retrieval.search import ItemIndex, SearchRequest, Timings, search

CATEGORIES = 100
NO_ROWS: frozenset[int] = frozenset()
WITHDRAWN = 1000
SELECTIVITIES = (0.9, 0.1, 0.01, 0.001)
LISTS = IndexSpec(kind="ivf", head=4096, lists=512, margin=2.5, probes=1)

Case = Callable[[int], Filter]  # number of the request -> its filter


@dataclass(frozen=True)
class Row:
    index: str
    case: str
    allowed: int
    recall: float
    median: float
    p95: float
    slowest: float


def names_of(vectors: NDArray[np.float32]) -> list[str | None]:
    """Categories by direction, so that the best items of a user have few categories."""
    planes = np.random.default_rng(1).standard_normal((vectors.shape[1], CATEGORIES))
    return [f"category {kind}" for kind in (vectors[1:] @ planes).argmax(axis=1)]


def cases(data: Data, exact: FlatIndex, k: int) -> dict[str, Case]:
    random, items = np.random.default_rng(2), len(data.vectors) - 1
    names = names_of(data.vectors)
    known = Categories(names)
    drawn = Categories([f"category {n}" for n in random.integers(0, CATEGORIES, items)])
    best = merge(exact.search(data.report, WITHDRAWN)).rows
    withdrawn_rows = frozenset((random.choice(items, WITHDRAWN, replace=False) + 1).tolist())

    def top(request: int, count: int) -> frozenset[int]:
        return frozenset(best[request, :count].tolist())

    def of(request: int, count: int) -> list[str]:
        return sorted({str(names[row - 1]) for row in top(request, count)})

    def by(
        categories: Categories,
        allow: list[str] | None = None,
        deny: list[str] | None = None,
        excluded: frozenset[int] = NO_ROWS,
        withdrawn: frozenset[int] = NO_ROWS,
    ) -> Filter:
        chosen = None if allow is deny is None else CategoryFilter(allow, deny or [])
        passes = None if chosen is None else categories.passes(chosen)
        return Filter(categories, excluded, withdrawn, passes)

    numbers = random.random(items)
    columns = {"price": Numbers(numbers)}

    def below(share: float) -> Filter:
        cheap = AttributeFilter([[Condition("price", lt=share)]])
        return Filter(known, NO_ROWS, NO_ROWS, None, RowMask(mask(columns, cheap, items)))

    def some(first: int, count: int) -> list[str]:
        return [f"category {(first + step) % CATEGORIES}" for step in range(count)]

    return {
        "no filter": lambda at: by(known),
        "20 seen": lambda at: by(known, excluded=top(at, 20)),
        "allow 1 %": lambda at: by(drawn, some(at, 1)),
        "allow 10 %": lambda at: by(drawn, some(at, 10)),
        "allow 50 %": lambda at: by(drawn, some(at, 50)),
        "allow one of neighbours": lambda at: by(known, some(at, 1)),
        "deny the first hit's category": lambda at: by(known, deny=of(at, 1)),
        "deny all categories of the top 50": lambda at: by(known, deny=of(at, 50)),
        "deny all categories of the top 1,000": lambda at: by(known, deny=of(at, 1000)),
        **{f"attribute, {100 * s:g} %": lambda at, s=s: below(s) for s in SELECTIVITIES},
        "1,000 withdrawn at random": lambda at: by(known, withdrawn=withdrawn_rows),
        "the 1,000 best withdrawn": lambda at: by(known, withdrawn=top(at, 1000)),
        "both, and deny those of the top 50": lambda at: by(
            known, deny=of(at, 50), withdrawn=top(at, 1000)
        ),
    }


def measure(
    index: ItemIndex, exact: FlatIndex, data: Data, case: Case, k: int, rounds: int
) -> tuple[int, float, NDArray[np.float64]]:
    """How many items are allowed, the recall, and the milliseconds of each request (Q,)."""
    milliseconds = np.empty((rounds, len(data.report)))
    allowed, recalls = [], []
    for at, interests in enumerate(data.report):
        requests = [SearchRequest(k, case(at))]
        allowed.append(len(requests[0].filter.rows()))
        [(_, true)] = search(exact, interests[None], requests, Timings())
        for turn in range(rounds):
            start = time.thread_time()
            requests = [SearchRequest(k, case(at))]
            [(_, found)] = search(index, interests[None], requests, Timings())
            milliseconds[turn, at] = time.thread_time() - start
        recalls.append(np.isin(true[0], found[0]).mean() if len(true[0]) else 1.0)
    return int(np.median(allowed)), float(np.mean(recalls)), milliseconds.min(axis=0) * 1e3


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--items", type=int, default=368_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--interests", type=int, default=8)
    parser.add_argument("--norms", type=float, default=0.4, help="deviation of the log norms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kernel", default=AUTO, help="auto, or the name of one")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    data = synthetic(options)
    kernel = find_kernel(options.kernel)
    print(f"{processor_name()}; kernel {kernel.name}")
    exact = FlatIndex(data.vectors, kernel)
    answers = merge(exact.search(data.tuning[:500], 4 * options.k)).rows
    demand = np.bincount(answers.ravel(), minlength=len(data.vectors))
    indexes = {"lists": build_index(data.vectors, LISTS, demand, kernel=kernel), "flat": exact}
    all_cases = cases(data, exact, options.k)
    one_core()
    rows = []
    for index, (case, allowed) in ((i, c) for i in indexes for c in all_cases.items()):
        passing, recall, ms = measure(
            indexes[index], exact, data, allowed, options.k, options.rounds
        )
        times = [round(float(np.quantile(ms, share)), 2) for share in (0.5, 0.95, 1)]
        row = Row(index, case, passing, round(recall, 4), *times)
        rows.append(row)
        print("{:6}{:40}{:8,}{:9.4f}{:9.2f}{:9.2f}{:9.2f}".format(*vars(row).values()))
    summary = {
        "benchmark": "filters",
        "items": options.items,
        "k": options.k,
        "cpu": processor_name(),
        "kernel": kernel.name,
        "rows": [asdict(row) for row in rows],
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()

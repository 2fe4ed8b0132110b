"""Both engines on the same items and requests: recall, elapsed time, memory, time to build.

    python tests/benchmarks/engines.py --folder FOLDER [--items 368000] [--only-build]
                                       [--uri http://HOST:19530]

faiss is our index in files, exact and with a head and lists; Milvus is milvus-lite in this
process, or the Milvus at --uri, whose memory is not seen from here. Each is measured in a process
of its own. What was built stays in FOLDER, so that building (--only-build) and measuring can be two
calls. The last line is one JSON object.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rivals import Data
from search import exact_answers, synthetic

from index.ann.build import build_index
from index.ann.flat import FlatIndex
from index.ann.index import read_index
from index.ann.kernels import FLOAT32
from index.ann.milvus import MilvusIndex
from index.ann.milvus_client import MilvusClient
from index.ann.spec import IndexSpec, MilvusSpec
from index.retrieval.merge import merge
from index.retrieval.search import ItemIndex

K = 50
FAISS = {
    "exact": IndexSpec(),
    "head and lists": IndexSpec(kind="ivf", head=2048, lists=512, margin=3.25, probes=1),
}
MILVUS = {
    "HNSW": MilvusSpec(
        collection="hnsw",
        index_type="HNSW",
        build={"M": 16, "efConstruction": 200},
        search={"ef": 128},
    ),
    "IVF_FLAT": MilvusSpec(
        collection="ivf_flat",
        index_type="IVF_FLAT",
        build={"nlist": 2428},
        search={"nprobe": 75},
    ),
}
NAMES = [*(f"faiss: {name}" for name in FAISS), *(f"Milvus: {name}" for name in MILVUS)]


def measured(index: ItemIndex, data: Data, rounds: int) -> dict[str, float]:
    """Recall, and the median over requests of the shortest elapsed time of all rounds."""
    truth = exact_answers(data, K)
    seconds = np.full((rounds, len(data.report)), np.inf)
    recalls = []
    for turn in range(rounds):
        for at, request in enumerate(data.report):
            start = time.perf_counter()
            rows = merge(index.search(request[None], K)).rows[0, :K]
            seconds[turn, at] = time.perf_counter() - start
            recalls.append(np.isin(truth[at], rows).mean())
    return {
        "recall": round(float(np.mean(recalls)), 4),
        "us": round(float(np.median(seconds.min(axis=0))) * 1e6),
    }


def opened(name: str, data: Data, given: argparse.Namespace) -> tuple[ItemIndex, float]:
    """The index, and seconds that it took to build, 0 if it was there."""
    start, items = time.perf_counter(), len(data.vectors) - 1
    engine, _, kind = name.partition(": ")
    if engine == "faiss":
        spec, path = FAISS[kind], given.folder / f"{kind}.faiss"
        if not path.exists():
            exact = FlatIndex(data.vectors, FLOAT32, 1 << 27).search(data.tuning[:500], 2 * K)
            demand = np.bincount(merge(exact).rows[:, : 2 * K].ravel(), minlength=items + 1)
            build_index(data.vectors, spec, demand).write(path)
            return read_index(path, data.vectors, spec), time.perf_counter() - start
        return read_index(path, data.vectors, spec), 0.0
    client = MilvusClient(given.uri or str(given.folder / f"{kind}.db"), timeout_s=600)
    took = 0.0
    if client.count(MILVUS[kind].collection) != items:
        client.create(MILVUS[kind], data.vectors, np.zeros(items + 1, np.int32))
        took = time.perf_counter() - start
    return MilvusIndex(client, MILVUS[kind], data.vectors), took


def child(name: str, given: argparse.Namespace) -> dict[str, Any]:
    data = synthetic(given)
    process = psutil.Process()
    before = process.memory_full_info().uss
    index, took = opened(name, data, given)
    if given.only_build:
        return {"built_s": round(took, 1)}
    index.search(data.report[:1], K)
    held = process.memory_full_info().uss - before
    return {**measured(index, data, given.rounds), "held_mib": round(held / 2**20)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="for what is built")
    parser.add_argument("--items", type=int, default=368_000)
    parser.add_argument("--requests", type=int, default=10, help="that are timed")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--names", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--only-build", action="store_true")
    parser.add_argument("--uri", help="of a Milvus, in place of milvus-lite")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.dim, given.interests, given.norms, given.seed = 64, 8, 0.4, 0
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.child:
        print(json.dumps(child(given.names[0], given)))
        return
    words = [word for word in sys.argv[1:] if word != "--names" and word not in NAMES]
    results = {}
    for name in given.names:
        command = [sys.executable, __file__, *words, "--child", "--names", name]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results[name] = json.loads(run.stdout.splitlines()[-1])
        print(f"{name}: {results[name]}", file=sys.stderr, flush=True)
    print(json.dumps({"benchmark": "engines", "items": given.items, **results}))


if __name__ == "__main__":
    main()

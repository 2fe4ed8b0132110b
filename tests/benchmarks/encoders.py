"""What each encoder costs: training on one core, and encoding one history and sixteen together.

    python tests/benchmarks/encoders.py [--log LOG] [--encoders re4,comirec-sa,...]

Each as `compare` trains it by default, or with settings of its own, `re4:interests=1`, on the
histories of the log (by default a synthetic one) in batches of 1,024. "one in PyTorch" has the
encoder's `forward` answer, in turns with what serves it. Microseconds are medians. The last line is
one JSON object.
"""

import argparse
import copy
import json
import os
import platform
import time
from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from train import on_one_core, samples_per_s

from index.encoders import ENCODERS
from index.encoders.cosine import CosineEncoder
from index.encoders.interface import Encoder
from index.encoders.score_terms import ScoreTermsEncoder
from index.retrieval.retriever import Retriever
from training.config import FitConfig
from training.data.examples import open_stream
from training.evaluation.evaluate import exact_retriever
from training.experiments.compare import system_config
from training.fitting.select_interests import candidates
from training.models.closed_form import has_closed_form
from training.models.model import Model

ITEMS = 12_000
BATCH, TOGETHER, CALLS = 1024, 16, 300
PLAIN = "objective=softmax;recency=false"
VARIANTS = (
    "re4:interests=1",
    f"re4:{PLAIN}",
    f"re4:{PLAIN};recontrast=0.1;reattend=0.1;reconstruct=0.1",
    "gru4rec:positions=all",
    "sasrec:positions=all",
    "transformer:positions=last",
    "linear:interests=4",
)


def encode_us(
    retrievers: Sequence[Retriever], histories: Sequence[Sequence[int]], together: int
) -> list[float]:
    """Of each retriever; they take turns."""
    spent: list[list[float]] = [[] for _ in retrievers]
    for call in range(CALLS):
        first = call * together % (len(histories) - together)
        for retriever, times in zip(retrievers, spent, strict=True):
            start = time.perf_counter()
            retriever.encode(histories[first : first + together])
            times.append(time.perf_counter() - start)
    return [float(np.median(times)) * 1e6 for times in spent]


def served_by_torch(encoder: Encoder) -> Encoder:
    """A copy, of the same weights, whose innermost encoder is served by its `forward`."""
    encoder = copy.deepcopy(encoder, {id(weights): weights for weights in encoder.parameters()})
    inner = encoder
    while isinstance(inner, CosineEncoder | ScoreTermsEncoder):
        inner = inner.encoder
    # Set past the attributes of a module, which are its layers.
    inner.__dict__["serve"] = partial(Encoder.serve, inner)
    return encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, help="log whose histories to use")
    parser.add_argument("--encoders", default=",".join((*ENCODERS, *VARIANTS)))
    given = parser.parse_args()
    ready = on_one_core(given.log, FitConfig())
    histories = [case.history for case in ready.split.test]
    costs = {}
    print(
        "| encoder | training, samples/s | encoding one, us | one in PyTorch, us | sixteen, us |",
        "|---|---:|---:|---:|---:|",
        sep="\n",
    )
    for text in given.encoders.split(","):
        config = candidates(system_config(text, {"batch_size": BATCH}, "best"))[0]
        data = ready.split.train, config.history, BATCH, 0
        model = Model(config, torch.ones(len(ready.catalog) + 1)).eval()
        vectors = model.vectors()
        retriever, by_torch = (
            exact_retriever(ready.catalog, encoder, vectors, config.history)
            for encoder in (model.encoder, served_by_torch(model.encoder))
        )
        stream = open_stream(config.positions, *data)
        is_trained = not has_closed_form(config)
        cost = (
            round(samples_per_s(config, stream, ITEMS)) if is_trained else None,
            *map(round, encode_us([retriever, by_torch], histories, 1)),
            *map(round, encode_us([retriever], histories, TOGETHER)),
        )
        costs[text] = cost
        speed = "computed" if cost[0] is None else f"{cost[0]:,}"
        print(f"| {text} | {speed} | {cost[1]:,} | {cost[2]:,} | {cost[3]:,} |", flush=True)
    about = {
        "cpu": platform.machine(),
        "date": date.today().isoformat(),
        "torch": torch.__version__,
    }
    print(json.dumps({"benchmark": "encoders", **about, "costs": costs}))


if __name__ == "__main__":
    main()

"""Training speed of Re4 on one core, at two catalogue sizes, beside the core's sgemm peak.

    python tests/benchmarks/train.py [--log LOG]

Histories are those of the log (by default a synthetic one), so that their lengths are real; the
larger catalogue is the same log with its items spread over more rows. Base is attention without
backward flows. The last line is one JSON object.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from datetime import date
from itertools import cycle
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from training.config import FitConfig
from training.data.examples import Examples, ExampleStream, Stream
from training.data.synthetic import write_synthetic
from training.experiments.compare import system_config
from training.fitting.fit import PreparedData, prepare_log
from training.fitting.malloc import keep_freed_memory
from training.fitting.optimization import build_optimizers, training_step
from training.models.model import Model

ITEMS = (12_000, 368_000)
BASE = {"recontrast": 0.0, "reattend": 0.0, "reconstruct": 0.0}
SECONDS = 12.0


def sgemm_gflops(size: int = 1024, repeats: int = 20) -> float:
    a, b = torch.randn(2, size, size)
    a @ b
    start = time.perf_counter()
    for _ in range(repeats):
        a @ b
    return 2 * size**3 * repeats / (time.perf_counter() - start) / 1e9


def spread(examples: Examples, items: int) -> Examples:
    """The same examples with their rows scattered over a catalogue of `items`."""
    parts = (examples.rows, examples.targets)
    rows, targets = (torch.where(part > 0, part * 2_654_435_761 % items + 1, 0) for part in parts)
    return Examples(rows, targets)


def samples_per_s(config: FitConfig, stream: Stream, items: int) -> float:
    torch.manual_seed(0)
    model = Model(config, torch.ones(items + 1)).train()
    optimizers = build_optimizers(model, config)
    batches = [spread(batch, items) for batch, _ in zip(stream.epoch(0), range(40), strict=False)]
    for batch in batches[:3]:
        training_step(model, optimizers, batch)
    # Processor time: on an idle core that of a clock, and beside other programs still the same.
    done, start = 0, time.process_time()
    for batch in cycle(batches):
        training_step(model, optimizers, batch)
        done += batch.size
        if (spent := time.process_time() - start) > SECONDS:
            return done / spent
    raise AssertionError("a stream without batches: this is a bug")


def on_one_core(log: Path | None, config: FitConfig) -> PreparedData:
    """Keep this process to one core, as a fit is; the log, or a synthetic one."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        if log is None:
            write_synthetic(Path(folder), users=15_000, items=3000)
        return prepare_log(log or Path(folder) / "interactions.parquet", None, config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, help="log whose histories to use")
    arguments = parser.parse_args()
    config = system_config("re4", {"batch_size": 1024}, "paper")
    prepared = on_one_core(arguments.log, config)
    stream = ExampleStream(prepared.split.train, config.history, 1024, seed=0)
    peak = sgemm_gflops()
    result: dict[str, object] = {
        "benchmark": "train",
        "cpu": platform.processor() or platform.machine(),
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "mean_history": round(float(np.diff(prepared.split.train.offsets).mean()), 1),
        "sgemm_gflops": round(peak, 1),
    }
    print(f"sgemm peak of this core: {peak:.1f} GFLOP/s; batches of 1,024, L = 20, K = 8, D = 64")
    print(f"{'items':>9} {'Base':>9} {'Re4':>9}   samples/s")
    for items in ITEMS:
        base = samples_per_s(config.model_copy(update=BASE), stream, items)
        full = samples_per_s(config, stream, items)
        result[f"base_{items}"], result[f"re4_{items}"] = round(base), round(full)
        print(f"{items:>9,} {base:>9,.0f} {full:>9,.0f}")
    small, large = (float(str(result[f"re4_{items}"])) for items in ITEMS)
    result["large_over_small"] = round(large / small, 3)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

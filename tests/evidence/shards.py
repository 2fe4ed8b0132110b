"""What an item table in shards takes from each of two processes, beside one that each has whole.

    python tests/evidence/shards.py [--items 2000000] [--dim 64] [--steps 20]

Two processes of torchrun hold a table, look up the rows of a batch, and update them by Adagrad.
The last line is one JSON object: for each form the MiB that a process holds more than before it
had a table, after the steps, and the milliseconds of a step.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch
import torch.distributed as dist

from training.fitting import ranks
from training.models.sharded_table import ShardedTable

_LOOKUPS = 50_000  # histories of 1,024 users, targets, negatives
_STD, _RATE = 0.1, 0.05


def measure(form: str, items: int, dim: int, steps: int) -> dict[str, float]:
    process = psutil.Process()
    torch.manual_seed(0)
    before = process.memory_info().rss
    table: ShardedTable | torch.nn.Embedding
    if form == "shards":
        table = ShardedTable(items, dim, _STD, _RATE, torch.device("cpu"))
    else:
        table = torch.nn.Embedding(items, dim, sparse=True)
        adagrad = torch.optim.Adagrad(table.parameters(), _RATE)
    draw = torch.Generator().manual_seed(dist.get_rank())
    started = time.perf_counter()
    for _ in range(steps):
        rows = torch.randint(1, items, (_LOOKUPS,), generator=draw)
        loss = table(rows).square().sum()
        if isinstance(table, torch.nn.Embedding):
            adagrad.zero_grad()
        loss.backward()
        if isinstance(table, torch.nn.Embedding):
            assert table.weight.grad is not None
            table.weight.grad = ranks.add_up_rows(table.weight.grad)
            adagrad.step()
    seconds = time.perf_counter() - started
    held = process.memory_info().rss - before
    return {"mib": round(held / 2**20), "ms_a_step": round(1000 * seconds / steps, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=2_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--form", choices=["shards", "whole"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.form is not None:
        dist.init_process_group("gloo")
        torch.set_num_threads(1)
        figures = measure(arguments.form, arguments.items, arguments.dim, arguments.steps)
        if dist.get_rank() == 0:
            print(json.dumps(figures))
        dist.destroy_process_group()
        return
    results = {}
    for form in ("whole", "shards"):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        given = [f"--{name}={getattr(arguments, name)}" for name in ("items", "dim", "steps")]
        done = subprocess.run(
            [*command, str(Path(__file__)), "--form", form, *given],
            stdout=subprocess.PIPE,
            check=True,
        )
        results[form] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps({"items": arguments.items, "dim": arguments.dim, **results}))


if __name__ == "__main__":
    main()

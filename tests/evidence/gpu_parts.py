"""What gpu_check.py measures, one step each: a function of the device and the sizes.

Each returns figures by name; `passed` is among those of a parity.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from growth_parts import K, histories
from server import REPOSITORY, serving

from index.ann.build import build_index
from index.ann.gpu import GpuIndex, emulate_gpu, make_cloner
from index.ann.spec import IndexSpec
from index.retrieval.catalog import Catalog
from index.retrieval.merge import merge
from training.config import FitConfig, read_config
from training.data.examples import Examples
from training.data.packed_log import PackedLog
from training.data.synthetic import write_synthetic
from training.evaluation.protocols import DataSplit, EvaluationCase
from training.fitting.fit import prepare_log
from training.fitting.optimization import build_optimizers, training_step
from training.fitting.trainer import Trainer
from training.models.model import Model

Figures = dict[str, Any]
PARITY = {"encoder": "re4", "interests": 4, "dim": 32, "negatives": 500, "batch_size": 256}
LOSS_TOLERANCE = 0.01  # of the loss; negatives and dropout are other draws on a GPU
METRIC_TOLERANCE = 0.03


@dataclass(frozen=True)
class Sizes:
    """items: of the training speeds. book: users, items and interactions of the whole epoch.
    served: items of the served catalogues. seconds: of each measurement."""

    items: tuple[int, ...]
    book: tuple[int, int, int]
    served: tuple[int, ...]
    seconds: float


def marked_tests(device: str, sizes: Sizes) -> Figures:
    """Every test that is marked `gpu`."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    last = ended.stdout.strip().splitlines()[-1] if ended.stdout.strip() else ended.stderr[-200:]
    return {"outcome": last, "passed": ended.returncode == 0}


def index_parity(device: str, sizes: Sizes) -> Figures:
    """The share of the CPU's 50 best that the device's index finds, when all lists are probed."""
    generator = np.random.default_rng(0)
    items = min(sizes.items[0], 20_000)
    vectors = generator.standard_normal((items + 1, 64), np.float32)
    vectors[0] = 0
    requests = generator.standard_normal((64, 4, 64), np.float32)
    shares = {}
    lists = IndexSpec(kind="ivf", lists=64, probes=64)
    for name, spec in {"flat": IndexSpec(), "lists": lists}.items():
        on_cpu = build_index(vectors, spec)
        probes = spec.probes if spec.kind == "ivf" else 1
        on_device = (
            emulate_gpu(on_cpu, vectors, probes)
            if device == "cpu"
            else GpuIndex(on_cpu, vectors, probes, make_cloner(device))
        )
        found, expected = (merge(i.search(requests, 50)).rows for i in (on_device, on_cpu))
        both = [np.isin(a[:50], b[:50]).mean() for a, b in zip(found, expected, strict=True)]
        shares[f"{name}_share"] = round(float(np.mean(both)), 4)
    return {**shares, "passed": min(shares.values()) > 0.99}


def training_parity(device: str, sizes: Sizes) -> Figures:
    """The loss of each epoch and the validation metric, on the device and on the CPU."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder, runs = Path(name), {}
        write_synthetic(folder, users=1000, items=500)
        variants = {
            "cpu": ("cpu", "float32"),
            "device": (device, "float32"),
            "bf16": (device, "bf16"),
        }
        for variant, (where, precision) in variants.items():
            settings = {**PARITY, "epochs": 4, "device": where, "precision": precision}
            config = read_config(None, settings)
            data = prepare_log(folder / "interactions.parquet", folder / "items.parquet", config)
            (folder / variant).mkdir()
            result = Trainer(config, data.catalog, data.split, folder / variant).run()
            runs[variant] = [record["losses"]["loss"] for record in result.history]
            figures[f"losses_{variant}"] = [round(loss, 4) for loss in runs[variant]]
            figures[f"recall@50_{variant}"] = round(result.metrics["recall@50"], 4)
    pairs = zip(runs["device"], runs["cpu"], strict=True)
    figures["largest_difference"] = round(max(abs(a - b) / b for a, b in pairs), 5)
    metrics = [figures[f"recall@50_{variant}"] for variant in variants]
    figures["passed"] = (
        figures["largest_difference"] < LOSS_TOLERANCE
        and max(metrics) - min(metrics) < METRIC_TOLERANCE
    )
    return figures


def training_speed(device: str, sizes: Sizes) -> Figures:
    """Samples/s of Re4 by items, in float32 and bf16, in batches of 1,024."""
    figures: Figures = {}
    for items in sizes.items:
        for precision in ("float32", "bf16"):
            given = {"encoder": "re4", "device": device, "precision": precision, "interests": 8}
            config = read_config(None, given)
            speed = samples_per_s(config, items, device, sizes.seconds)
            figures[f"{items:,} items, {precision}"] = f"{speed:,.0f} samples/s"
    return figures


def samples_per_s(config: FitConfig, items: int, device: str, seconds: float) -> float:
    torch.manual_seed(0)
    model = Model(config, torch.ones(items + 1)).to(device).train()
    optimizers = build_optimizers(model, config)
    rows = torch.randint(1, items + 1, (8, 1024, config.history), device=device)
    batches = [Examples(each, each[:, 0].roll(1)) for each in rows]
    for batch in batches[:2]:
        training_step(model, optimizers, batch, config.precision)
    done, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        # A step ends with its losses on the CPU, so nothing is left to wait for.
        training_step(model, optimizers, batches[done % len(batches)], config.precision)
        done += 1
    return 1024 * done / spent


def book_epoch(device: str, sizes: Sizes) -> Figures:
    """An epoch of a log of the size of Amazon Book, and a validation of 5,000 users."""
    users, items, interactions = sizes.book
    generator = np.random.default_rng(0)
    offsets = np.linspace(0, interactions, users + 1).astype(np.int64)
    rows = (1 + items * generator.random(interactions) ** 3).astype(np.int32).clip(1, items)
    ids = np.array([f"u{n}" for n in range(users)], dtype=object)
    log = PackedLog(rows, offsets, np.arange(interactions, dtype=np.float64), ids)
    names = [f"i{n}" for n in range(items)]
    catalog = Catalog(names, np.arange(items, 0, -1), [None] * items, [None] * items)
    cases = [
        EvaluationCase(log.rows[a : b - 1].tolist(), log.rows[b - 1 : b].tolist())
        for a, b in pairwise(offsets[:5001])
    ]
    given = {"encoder": "re4", "interests": 8, "epochs": 1, "device": device}
    config = read_config(None, {**given, "batch_size": 1024})
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, catalog, DataSplit(log, cases, cases), Path(folder))
        [record] = trainer.run().history
        start = time.perf_counter()
        Trainer(config, catalog, DataSplit(log, cases, cases), Path(folder)).validate()
        validation_s = time.perf_counter() - start
    return {
        "epoch": f"{record['seconds']:,.1f} s",
        "speed": f"{record['samples_per_s']:,.0f} samples/s",
        "validation": f"{validation_s:.1f} s for {len(cases):,} users",
    }


def serving_speed(device: str, sizes: Sizes) -> Figures:
    """Requests/s and p99 over HTTP, 64 connections that ask again at once."""
    figures: Figures = {}
    for items in sizes.served:
        with served(items, device) as url:
            latencies = asyncio.run(load(url, items, sizes.seconds))
        figures[f"{items:,} items"] = (
            f"{len(latencies) / sizes.seconds:,.0f} requests/s, "
            f"p99 {np.percentile(latencies, 99) * 1e3:.1f} ms"
        )
    return figures


@contextmanager
def served(items: int, device: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        parts = Path(__file__).with_name("growth_parts.py")
        draft = Path(name) / "root" / "drafts" / f"items-{items}"
        for command in (
            [str(parts), "draft", name, str(items), "0.4"],
            ["-m", "index", "build", str(draft)],
            ["-m", "index", "publish", str(draft), "--force"],
        ):
            environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
            subprocess.run(
                [sys.executable, *command],
                cwd=REPOSITORY,
                env=environment,
                stdout=subprocess.DEVNULL,
                check=True,
            )
        with serving(Path(name) / "root", device=device, workers=1) as running:
            yield running.url


async def load(url: str, items: int, seconds: float, connections: int = 64) -> list[float]:
    """Seconds that each answer took."""
    latencies: list[float] = []
    bodies = [{"sequence": history, "k": K} for history in histories(items)]
    end = time.perf_counter() + seconds

    async def ask(first: int) -> None:
        async with httpx.AsyncClient(timeout=60) as client:
            number = first
            while (start := time.perf_counter()) < end:
                number += 1
                body = bodies[number % len(bodies)]
                (await client.post(f"{url}/recommend", json=body)).raise_for_status()
                latencies.append(time.perf_counter() - start)

    await asyncio.gather(*(ask(first) for first in range(connections)))
    return latencies

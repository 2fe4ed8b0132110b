"""What the service can answer on one core, and how near that is to what its parts allow.

    python tests/benchmarks/service.py [--items N] [--seconds S] [--root DIR]

The server has one core and the load another. The http floor is the same app with a prepared answer
for an engine; the engine is encode, search and merge in a bare loop, one request or a full batch at
a time, whichever is faster. No service can answer more than 1 / (floor + engine). Saturation is a
closed loop; latency is an open loop at 70 % of it. Vectors are random, in clusters, with skewed
norms. The last line is one JSON object.
"""

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from load import Load, closed_loop, open_loop, prepare
from numpy.typing import NDArray

from index.build import build
from index.catalog import Catalog
from index.encoders import Encoder, History, build_encoder
from index.publish import publish
from index.release import (
    DRAFTS,
    DataWindow,
    EncoderSpec,
    Manifest,
    read_current,
    write_manifest,
    write_parts,
)

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = "tests.benchmarks.load_parts"  # not a script beside this file, whose name hides a package
DIM, INTERESTS, HISTORY, K = 64, 8, 20, 50
CLUSTERS = 2000
CONNECTIONS = 16
LOAD_SHARE = 0.7

Histories = NDArray[np.int64]


# --- a release to serve ---


def make_release(root: Path, items: int) -> None:
    """Build and publish a release of random items, unless the root has one of as many."""
    release_id = f"random-{items}"
    if root.is_dir() and read_current(root) == release_id:
        return
    draft = root / DRAFTS / release_id
    generator = np.random.default_rng(0)
    vectors, cluster = make_vectors(generator, items)
    encoder = make_encoder()
    interests = encode(encoder, vectors, make_histories(generator, cluster, 1000))
    files = write_parts(draft, encoder, vectors, make_catalog(items), interests)
    manifest = Manifest(
        id=release_id,
        created=datetime.now(UTC),
        code_version="benchmark",
        encoder=EncoderSpec(
            name="re4", arguments={"dim": DIM, "interests": INTERESTS}, history_length=HISTORY
        ),
        data=DataWindow(interactions=items, users=1, items=items, first=0, last=1),
        training={},
        metrics={},
        files=dict(files),
    )
    write_manifest(draft, manifest)
    build(draft, said=lambda line: print(line, file=sys.stderr))
    publish(draft, force=True)


def make_vectors(
    generator: np.random.Generator, items: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors (items + 1, D) in clusters of Zipf's sizes, with log-normal norms; their clusters."""
    centres = generator.standard_normal((CLUSTERS, DIM), dtype=np.float32)
    shares = 1 / np.arange(1, CLUSTERS + 1) ** 0.7
    cluster = generator.choice(CLUSTERS, items + 1, p=shares / shares.sum())
    noise = generator.standard_normal((items + 1, DIM), dtype=np.float32)
    vectors = centres[cluster] + 0.7 * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors *= generator.lognormal(0, 0.3, (items + 1, 1)).astype(np.float32)
    vectors[0] = 0
    return vectors, cluster


def make_histories(
    generator: np.random.Generator, cluster: NDArray[np.int64], users: int
) -> Histories:
    """Rows (users, HISTORY) of users who care for a few clusters each."""
    members = np.argsort(cluster[1:], kind="stable") + 1
    starts = np.searchsorted(cluster[members], np.arange(CLUSTERS))
    ends = np.append(starts[1:], len(members))
    liked = generator.integers(0, CLUSTERS, (users, 4))
    chosen = np.take_along_axis(liked, generator.integers(0, 4, (users, HISTORY)), axis=1)
    sizes = np.maximum(ends - starts, 1)
    return members[starts[chosen] + generator.integers(0, 1 << 30, chosen.shape) % sizes[chosen]]


def make_encoder() -> Encoder:
    """Untrained weights, but such that the interests of a user differ as trained ones do."""
    torch.manual_seed(0)
    encoder = build_encoder("re4", {"dim": DIM, "interests": INTERESTS})
    weights = encoder.state_dict()
    weights["value.weight"].copy_(torch.eye(DIM))
    weights["score.weight"].mul_(100)
    return encoder.eval().requires_grad_(False)


def encode(
    encoder: Encoder, vectors: NDArray[np.float32], histories: Histories
) -> NDArray[np.float32]:
    rows = torch.from_numpy(histories)
    result: NDArray[np.float32] = encoder(
        History(rows, torch.from_numpy(vectors[histories]), rows > 0)
    ).vectors.numpy()
    return result


def make_catalog(items: int) -> Catalog:
    return Catalog(
        ids=[f"item-{row}" for row in range(1, items + 1)],
        popularity=np.arange(items, 0, -1),
        categories=[None] * items,
        titles=[f"Title of item {row}" for row in range(1, items + 1)],
    )


def sequences(items: int, users: int) -> list[list[str]]:
    """Histories as clients post them; other users than those that the index was tuned on."""
    generator = np.random.default_rng(0)
    _, cluster = make_vectors(generator, items)
    histories = make_histories(np.random.default_rng(1), cluster, users)
    return [[f"item-{row}" for row in history] for history in histories.tolist()]


# --- measuring ---


@dataclass(frozen=True)
class Cores:
    server: int
    load: int


def pick_cores() -> Cores:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("one core only: server and load share it, so the rates are too low", file=sys.stderr)
    return Cores(cores[0], cores[-1])


def start(core: int, module: str, *arguments: str) -> "subprocess.Popen[str]":
    """A Python process on that core."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=REPOSITORY,
            text=True,
            stdout=subprocess.PIPE,
        )
    finally:
        os.sched_setaffinity(0, ours)


@contextmanager
def serving(core: int, port: int, module: str, *arguments: str) -> Iterator[None]:
    """A server that is ready, and ended afterwards."""
    process = start(core, module, *arguments)
    try:
        while not is_ready(port):
            if process.poll() is not None:
                raise SystemExit(f"the server ended with status {process.returncode}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.communicate()


def is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
            return bool(answer.status == 200)
    except URLError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def checked(load: Load) -> Load:
    if set(load.statuses) != {200}:
        raise SystemExit(f"not every answer was 200: {dict(load.statuses)}")
    return load


def measure(root: Path, items: int, seconds: float) -> dict[str, float]:
    cores, port = pick_cores(), free_port()
    os.sched_setaffinity(0, {cores.load})
    asked = sequences(items, 2000)
    (root / "sequences.json").write_text(json.dumps(asked))
    requests = [
        prepare("/recommend", json.dumps({"sequence": sequence, "k": K}).encode())
        for sequence in asked
    ]
    engine, _ = start(cores.server, PARTS, "engine", str(root), str(seconds)).communicate()
    result: dict[str, float] = json.loads(engine)
    with serving(cores.server, port, PARTS, "floor", str(root), str(port)):
        floor = checked(closed_loop(port, requests, CONNECTIONS, seconds))
    service = ("service", "--releases", str(root), "--port", str(port), "--drain-s", "0")
    with serving(cores.server, port, *service, "--log-level", "warning"):
        closed = checked(closed_loop(port, requests, CONNECTIONS, seconds))
        opened = checked(open_loop(port, requests, LOAD_SHARE * closed.rate, seconds))
    engine_us = min(us for name, us in result.items() if name.startswith("engine_us"))
    ceiling = 1e6 / (1e6 / floor.rate + engine_us)
    return result | {
        "http_floor_us": 1e6 / floor.rate,
        "ceiling_per_s": ceiling,
        "saturation_per_s": closed.rate,
        "share_of_ceiling": closed.rate / ceiling,
        "open_loop_per_s": LOAD_SHARE * closed.rate,
        "p50_ms": opened.percentile_ms(50),
        "p95_ms": opened.percentile_ms(95),
        "p99_ms": opened.percentile_ms(99),
    }


def show(result: dict[str, float], items: int) -> None:
    print(f"{items:,} items, K = {INTERESTS}, k = {K}, histories of {HISTORY}, one server core")
    for name, value in result.items():
        print(f"  {name.replace('_', ' '):<24}{value:>12,.{0 if value >= 100 else 3}f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=368_000)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each measurement")
    parser.add_argument("--root", type=Path, default=REPOSITORY / ".bench" / "service")
    given = parser.parse_args()
    make_release(given.root, given.items)
    result = measure(given.root, given.items, given.seconds)
    show(result, given.items)
    head = {"benchmark": "service", "cpu": cpu(), "date": date.today().isoformat()}
    print(json.dumps({**head, "items": given.items, **{k: round(v, 3) for k, v in result.items()}}))


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    main()

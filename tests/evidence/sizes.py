"""Memory and time as functions of items, users and events.

    python tests/evidence/sizes.py [--sizes 10000,50000,250000] [--examples 100000]
        [--redis-users 10000]

For each size, a synthetic log with as many items as users and ten events a user is fitted (one
epoch of the default model on --examples of its examples, with the whole log in memory; the rest of
the time is extrapolated), indexed, published and served. Then full histories of --redis-users users
are written to a Redis and exported. Every part runs in a process of its own with one thread.
Seconds are CPU time; memory is the peak resident set. The service's memory is what each of its
processes has alone, plus once what they share, as if no other process mapped the same libraries.
Prints a Markdown table; the last line is one JSON object.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import psutil
from server import MIB, REPOSITORY, serving

# No heavy import here: the peak of a child process includes the memory of its parent.
PARTS = Path(__file__).with_name("sizes_parts.py")
WORKERS = (1, 2)
REQUESTS, LOADS = 400, 3

Summary = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished program: its last line, times and peak memory."""

    last_line: str
    wall_s: float
    cpu_s: float
    peak_mib: float

    @property
    def summary(self) -> Summary:
        summary: Summary = json.loads(self.last_line)
        return summary


def run(*arguments: object, threads: int | None = 1) -> Run:
    """Run Python with these arguments. Raises SystemExit if it fails.

    threads: of its OpenMP; None for one on each processor.
    """
    limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdout=stdout,
            stderr=stderr,
            cwd=REPOSITORY,
            env={**os.environ, **limits},
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        for file in (stdout, stderr):
            file.seek(0)
        lines = stdout.read().decode().splitlines()
        if process.returncode:
            message = stderr.read().decode()
            raise SystemExit(f"{arguments}: exit code {process.returncode}: {message}")
    cpu_s = usage.ru_utime + usage.ru_stime
    return Run(lines[-1] if lines else "", wall_s, cpu_s, usage.ru_maxrss / 1024)


def measure(folder: Path, size: int, examples: int) -> Summary:
    """One size, from the log to the server."""
    root = folder / "root"
    log = run(PARTS, "log", folder, size).summary
    fit = run(PARTS, "fit", folder, examples)
    draft = fit.summary["draft"]
    build = run("-m", "index", "build", draft)
    # The gate requires metrics that a part of an epoch does not reach.
    publish = run("-m", "index", "publish", draft, "--force")
    release = root / "releases" / Path(draft).name
    manifest = json.loads((release / "manifest.json").read_text())
    summary: Summary = {
        "items": fit.summary["items"],
        "users": fit.summary["users"],
        "events": log["interactions"],
        "fit_s": fit.cpu_s + fit.summary["cpu_s_left_out"],
        "fit_measured_s": fit.cpu_s,
        "fit_mib": fit.peak_mib,
        "build_s": build.cpu_s,
        "build_mib": build.peak_mib,
        "publish_s": publish.cpu_s,
        "publish_mib": publish.peak_mib,
        "index": manifest["index"]["spec"]["kind"],
        "release_mb": sum(path.stat().st_size for path in release.iterdir()) / 1e6,
    }
    summary |= run(PARTS, "load", release, LOADS).summary
    for workers in WORKERS:
        summary |= serve(root, workers)
    return {name: round(v, 2) if isinstance(v, float) else v for name, v in summary.items()}


def serve(root: Path, workers: int) -> Summary:
    """The memory of so many workers after they have answered requests."""
    with serving(root, workers=workers) as server:
        for event in ("release loaded", "listening"):
            server.wait_for(event, workers)
        # One connection a request, so that all workers get some.
        with httpx.Client(limits=httpx.Limits(max_keepalive_connections=0)) as client:
            for number in range(REQUESTS):
                sequence = [f"item-{number * 2 + step:05d}" for step in range(20)]
                body = {"sequence": sequence, "k": 50}
                client.post(f"{server.url}/recommend", json=body).raise_for_status()
        processes = [psutil.Process(server.pid)]
        processes += processes[0].children(recursive=True)
        workers_memory = [p.memory_full_info() for p in processes if "redis" not in p.name()]
        shared = max(memory.rss - memory.uss for memory in workers_memory)
        total = sum(memory.uss for memory in workers_memory) + shared
        return {
            f"service_{workers}_mib": total / MIB,
            f"own_{workers}_mib": max(memory.uss for memory in workers_memory) / MIB,
        }


ROWS: tuple[tuple[str, str, Callable[[Summary], str]], ...] = (
    ("items", "", lambda t: f"{t['items']:,}"),
    ("users", "", lambda t: f"{t['users']:,}"),
    ("events", "", lambda t: f"{t['events']:,}"),
    ("fit, an epoch", "s, peak MiB", lambda t: f"{t['fit_s']:,.0f}, {t['fit_mib']:,.0f}"),
    ("index build", "s, peak MiB", lambda t: f"{t['build_s']:,.1f}, {t['build_mib']:,.0f}"),
    ("publish", "s, peak MiB", lambda t: f"{t['publish_s']:,.1f}, {t['publish_mib']:,.0f}"),
    ("release on disk", "MB", lambda t: f"{t['release_mb']:,.1f}"),
    ("loading the release", "s", lambda t: f"{t['load_s']:.2f}"),
    ("service of one worker", "MiB", lambda t: f"{t['service_1_mib']:,.0f}"),
    ("service of two workers", "MiB", lambda t: f"{t['service_2_mib']:,.0f}"),
    ("each worker alone", "MiB", lambda t: f"{t['own_2_mib']:,.0f}"),
)


def table(sizes: list[Summary]) -> str:
    lines = [f"| | | {' | '.join([''] * len(sizes))} |", f"|---|---|{'---:|' * len(sizes)}"]
    lines += [f"| {name} | {unit} | {' | '.join(map(show, sizes))} |" for name, unit, show in ROWS]
    return "\n".join(lines)


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10000,50000,250000", help="items, and users")
    parser.add_argument("--examples", type=int, default=100_000, help="examples to train on, about")
    parser.add_argument("--redis-users", type=int, default=10_000)
    options = parser.parse_args()
    sizes = []
    for size in map(int, options.sizes.split(",")):
        with tempfile.TemporaryDirectory(prefix="re4-sizes-") as folder:
            sizes.append(measure(Path(folder), size, options.examples))
        print(sizes[-1], file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="re4-sizes-") as folder:
        redis = run(PARTS, "redis", folder, options.redis_users)
    print(table(sizes))
    print(
        json.dumps(
            {
                "evidence": "sizes",
                "passed": True,
                "date": date.today().isoformat(),
                "cpu": cpu(),
                "cores": os.cpu_count(),
                "sizes": sizes,
                "redis": {**redis.summary, "cpu_s": round(redis.cpu_s, 1)},
            }
        )
    )


if __name__ == "__main__":
    main()

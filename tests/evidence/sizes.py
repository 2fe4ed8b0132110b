"""What it takes: memory and time as functions of items, users and events.

    python tests/evidence/sizes.py [--sizes 10000,50000,250000] [--examples 100000]
        [--redis-users 10000]

For each size, a synthetic log of as many items as users and ten events a user goes all the way:
fit (one epoch of the default model, on so many of its examples with all of the log in memory, the
rest of the time extrapolated), index, publish, serve. Then full histories of so many users go into
a Redis and out again. Everything runs in a process of its own with one thread. Seconds are of the
processor, which is what a machine with nothing else to do takes; memory is the most that was ever
resident. Of the service: what each of its processes has to itself, and what they share once, as if
nothing else on the machine mapped the same libraries. Prints a table in Markdown; the last line is
one JSON object.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import psutil
from server import MIB, REPOSITORY, serving

# Nothing that is heavy is imported here: a child's peak begins with what its parent holds.
PARTS = Path(__file__).with_name("sizes_parts.py")
WORKERS = (1, 2)
ASKED, LOADS = 400, 3

Told = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A program that ended: what it said last, and what it took."""

    said: str
    cpu_s: float
    peak_mib: float

    @property
    def told(self) -> Told:
        told: Told = json.loads(self.said)
        return told


def run(*words: object) -> Run:
    """Run Python with these arguments. Raises SystemExit if it fails."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complaint:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdout=said,
            stderr=complaint,
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        for file in (said, complaint):
            file.seek(0)
        lines = said.read().decode().splitlines()
        if process.returncode:
            told = complaint.read().decode()
            raise SystemExit(f"{words}: ended with {process.returncode}: {told}")
    return Run(lines[-1] if lines else "", usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def measure(folder: Path, size: int, examples: int) -> Told:
    """One size, from the log to the server."""
    root = folder / "root"
    log = run(PARTS, "log", folder, size).told
    fit = run(PARTS, "fit", folder, examples)
    draft = fit.told["draft"]
    build = run("-m", "index", "build", draft)
    # The gate asks for metrics that a part of an epoch does not reach.
    publish = run("-m", "index", "publish", draft, "--force")
    release = root / "releases" / Path(draft).name
    manifest = json.loads((release / "manifest.json").read_text())
    told: Told = {
        "items": fit.told["items"],
        "users": fit.told["users"],
        "events": log["interactions"],
        "fit_s": fit.cpu_s + fit.told["cpu_s_left_out"],
        "fit_measured_s": fit.cpu_s,
        "fit_mib": fit.peak_mib,
        "build_s": build.cpu_s,
        "build_mib": build.peak_mib,
        "publish_s": publish.cpu_s,
        "publish_mib": publish.peak_mib,
        "index": manifest["index"]["spec"]["kind"],
        "release_mb": sum(path.stat().st_size for path in release.iterdir()) / 1e6,
    }
    told |= run(PARTS, "load", release, LOADS).told
    for workers in WORKERS:
        told |= served(root, workers)
    return {name: round(v, 2) if isinstance(v, float) else v for name, v in told.items()}


def served(root: Path, workers: int) -> Told:
    """What so many workers hold once they have answered."""
    with serving(root, workers=workers) as server:
        for event in ("release loaded", "listening"):
            server.wait_for(event, workers)
        # Each over a connection of its own, so that all workers get some.
        with httpx.Client(limits=httpx.Limits(max_keepalive_connections=0)) as client:
            for number in range(ASKED):
                asked = [f"item-{number * 2 + step:05d}" for step in range(20)]
                body = {"sequence": asked, "k": 50}
                client.post(f"{server.url}/recommend", json=body).raise_for_status()
        processes = [psutil.Process(server.pid)]
        processes += processes[0].children(recursive=True)
        ours = [each for each in processes if "redis" not in each.name()]
        memory = [each.memory_full_info() for each in ours]
        shared = max(each.rss - each.uss for each in memory)
        whole = sum(each.uss for each in memory) + shared
        return {
            f"service_{workers}_mib": whole / MIB,
            f"own_{workers}_mib": max(each.uss for each in memory) / MIB,
        }


ROWS: tuple[tuple[str, str, Callable[[Told], str]], ...] = (
    ("items", "", lambda t: f"{t['items']:,}"),
    ("users", "", lambda t: f"{t['users']:,}"),
    ("events", "", lambda t: f"{t['events']:,}"),
    ("fit, an epoch", "s, peak MiB", lambda t: f"{t['fit_s']:,.0f}, {t['fit_mib']:,.0f}"),
    ("index build", "s, peak MiB", lambda t: f"{t['build_s']:,.1f}, {t['build_mib']:,.0f}"),
    ("publish", "s, peak MiB", lambda t: f"{t['publish_s']:,.1f}, {t['publish_mib']:,.0f}"),
    ("release on disk", "MB", lambda t: f"{t['release_mb']:,.1f}"),
    ("loading it", "s", lambda t: f"{t['load_s']:.2f}"),
    ("service of one worker", "MiB", lambda t: f"{t['service_1_mib']:,.0f}"),
    ("service of two workers", "MiB", lambda t: f"{t['service_2_mib']:,.0f}"),
    ("of that each worker's own", "MiB", lambda t: f"{t['own_2_mib']:,.0f}"),
)


def table(sizes: list[Told]) -> str:
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
    parser.add_argument("--examples", type=int, default=100_000, help="trained on, at most about")
    parser.add_argument("--redis-users", type=int, default=10_000)
    given = parser.parse_args()
    sizes = []
    for size in map(int, given.sizes.split(",")):
        with tempfile.TemporaryDirectory(prefix="re4-sizes-") as folder:
            sizes.append(measure(Path(folder), size, given.examples))
        print(sizes[-1], file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="re4-sizes-") as folder:
        redis = run(PARTS, "redis", folder, given.redis_users)
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
                "redis": {**redis.told, "cpu_s": round(redis.cpu_s, 1)},
            }
        )
    )


if __name__ == "__main__":
    main()

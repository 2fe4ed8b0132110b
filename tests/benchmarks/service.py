"""What the service can answer on one core, and how near that is to what its parts allow.

    python tests/benchmarks/service.py [--items N] [--rounds R] [--seconds S] [--root DIR]

The server has one core and the load another. The http floor is the same app with a prepared answer
for an engine; the engine is encode, search and merge in a bare loop, one request or a full batch at
a time, whichever is faster. No service can answer more than 1 / (floor + engine). The three are
measured in turn, round after round, so that whatever else the machine does meets them alike; each
number is the median of its rounds. Saturation is a closed loop; latency is an open loop at 70 % of
it, beside that of a control, a server that answers anything at once: what is slow there is not the
service's. During the open loop, `ran` is the share of the time that the service had its core, and
`waited` that something else had it while the service could have run. The last line is one JSON
object.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from statistics import median
from urllib.error import URLError
from urllib.request import urlopen

import psutil

os.environ["OMP_NUM_THREADS"] = "1"

from load import Load, closed_loop, open_loop, prepare
from load_data import HISTORY, INTERESTS, make_release, sequences

from index.ann.kernel_choice import AUTO, find_kernel
from index.ann.processor import processor_name

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = "tests.benchmarks.load_parts"  # not a script beside this file, whose name hides a package
K = 50
CONNECTIONS = 32
LOAD_SHARE = 0.7

Numbers = dict[str, float]


def start(core: int, *module: str, **settings: object) -> "subprocess.Popen[str]":
    """A Python process on that core, with settings of the service in its environment."""
    variables = {f"RE4_{name.upper()}": str(value) for name, value in settings.items()}
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return subprocess.Popen(
            [sys.executable, "-m", *module],
            env={**os.environ, **variables},
            cwd=REPOSITORY,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    finally:
        os.sched_setaffinity(0, ours)


@contextmanager
def serving(core: int, root: Path, *module: str) -> Iterator[int]:
    """The port of a server that is ready; it is ended afterwards."""
    port = free_port()
    settings = {"releases": root, "port": port, "drain_s": 0, "log_level": "warning"}
    process = start(core, *module, **settings)
    try:
        while not is_ready(port):
            if process.poll() is not None:
                raise SystemExit(f"the server ended with status {process.returncode}")
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
            return bool(answer.status == 200)
    except URLError:
        return False


class Engine:
    """The bare loop, which runs when it is told to."""

    def __init__(self, core: int, root: Path) -> None:
        self._process = start(core, PARTS, "engine", releases=root)

    def measure(self, seconds: float) -> Numbers:
        """Microseconds a request."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(seconds, file=self._process.stdin, flush=True)
        result: Numbers = json.loads(self._process.stdout.readline())
        return result

    def close(self) -> None:
        self._process.communicate()


def checked(load: Load) -> Load:
    if set(load.statuses) != {200}:
        raise SystemExit(f"not every answer was 200: {dict(load.statuses)}")
    return load


def measure(root: Path, items: int, rounds: int, seconds: float) -> Numbers:
    core = claim_cores()
    asked = sequences(items, 2000)
    (root / "sequences.json").write_text(json.dumps(asked))
    bodies = [json.dumps({"sequence": sequence, "k": K}).encode() for sequence in asked]
    requests = [prepare("/recommend", body) for body in bodies]
    with ExitStack() as stack:
        engine = Engine(core, root)
        stack.callback(engine.close)
        floor = stack.enter_context(serving(core, root, PARTS, "floor"))
        service = stack.enter_context(serving(core, root, "service"))
        process = max(psutil.Process().children(), key=lambda child: child.create_time())
        engine.measure(0.5)  # it opens its release first
        results = [one_round(engine, floor, service, requests, seconds) for _ in range(rounds)]
        result = {name: median(each[name] for each in results) for name in results[0]}
        rate = LOAD_SHARE * result["saturation_per_s"]
        before, start = scheduled(process.pid), time.perf_counter()
        latency = checked(open_loop(service, requests, rate, rounds * seconds))
        took = time.perf_counter() - start
        ran, waited = (
            (after - then) / took
            for after, then in zip(scheduled(process.pid), before, strict=True)
        )
    with serving(core, root, PARTS, "bare") as port:
        control = checked(open_loop(port, requests, rate, rounds * seconds))
    percentiles = {
        f"{name}p{p}_ms": load.percentile_ms(p)
        for name, load in (("", latency), ("control_", control))
        for p in (50, 95, 99)
    }
    return {**result, "open_loop_per_s": rate, "ran": ran, "waited": waited, **percentiles}


def scheduled(pid: int) -> tuple[float, float]:
    """Seconds that the threads of a process ran, and that they waited for a core."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    threads = [[int(number) for number in file.read_text().split()] for file in files]
    return sum(each[0] for each in threads) / 1e9, sum(each[1] for each in threads) / 1e9


def claim_cores() -> int:
    """Keep this process to the last core; the server is to have the first, which is returned."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        print("one core only: server and load share it, so the rates are too low", file=sys.stderr)
    os.sched_setaffinity(0, cores[-1:])
    return cores[0]


def one_round(
    engine: Engine, floor: int, service: int, requests: list[bytes], seconds: float
) -> Numbers:
    alone = engine.measure(seconds)
    web = checked(closed_loop(floor, requests, CONNECTIONS, seconds)).rate
    whole = checked(closed_loop(service, requests, CONNECTIONS, seconds)).rate
    engine_us = min(us for name, us in alone.items() if name.startswith("engine_us"))
    ceiling = 1e6 / (1e6 / web + engine_us)
    return {
        **alone,
        "http_floor_us": 1e6 / web,
        "ceiling_per_s": ceiling,
        "saturation_per_s": whole,
        "share_of_ceiling": whole / ceiling,
    }


def show(result: Numbers, items: int) -> None:
    print(f"{processor_name()}; kernel {kernel()}")
    print(f"{items:,} items, K = {INTERESTS}, k = {K}, histories of {HISTORY}, one server core")
    for name, value in result.items():
        print(f"  {name.replace('_', ' '):<24}{value:>12,.{0 if value >= 100 else 3}f}")


def kernel() -> str:
    """The server's: it inherits the environment."""
    return find_kernel(os.environ.get("RE4_KERNEL", AUTO)).name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=368_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement")
    parser.add_argument("--root", type=Path, default=REPOSITORY / ".bench" / "service")
    given = parser.parse_args()
    make_release(given.root, given.items)
    result = measure(given.root, given.items, given.rounds, given.seconds)
    show(result, given.items)
    head = {
        "benchmark": "service",
        "cpu": processor_name(),
        "kernel": kernel(),
        "date": date.today().isoformat(),
    }
    print(json.dumps({**head, "items": given.items, **{k: round(v, 3) for k, v in result.items()}}))


if __name__ == "__main__":
    main()

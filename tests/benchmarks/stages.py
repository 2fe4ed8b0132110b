"""Where each microsecond of a request goes, from socket to socket.

    python tests/benchmarks/stages.py [--items N] [--seconds S] [--root DIR]

A real server on one core under a closed loop from another; each function at the border of a stage
is timed (see stage_clock.py), and what the process does besides is the event loop and the kernel's
sockets. The stages add up to the processor time of a request under timers, which is printed beside
that of the same server without them. The last line is one JSON object.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from load import closed_loop, prepare
from load_data import make_release, sequences

from index.ann.processor import processor_name
from service import (
    CONNECTIONS,
    PARTS,
    REPOSITORY,
    K,
    checked,
    claim_cores,
    free_port,
    is_ready,
    kernel,
    serving,
    start,
)


@contextmanager
def timed(core: int, root: Path, told: dict[str, float]) -> Iterator[int]:
    """The port of a server with timers, whose seconds in each stage are in `told` afterwards."""
    port = free_port()
    settings = {"releases": root, "port": port, "drain_s": 0, "log_level": "warning"}
    process = start(core, PARTS, "stages", **settings)
    while not is_ready(port):
        time.sleep(0.1)
    yield port
    process.terminate()
    told.update(json.loads(process.communicate()[0]))


def measure(root: Path, items: int, seconds: float) -> tuple[dict[str, float], float]:
    """Microseconds of a request in each stage, and all of them without timers."""
    core = claim_cores()
    bodies = [json.dumps({"sequence": each, "k": K}).encode() for each in sequences(items, 2000)]
    requests = [prepare("/recommend", body) for body in bodies]
    with serving(core, root, "service") as port:
        plain = 1e6 / checked(closed_loop(port, requests, CONNECTIONS, seconds)).rate
    told: dict[str, float] = {}
    with timed(core, root, told) as port:
        load = checked(closed_loop(port, requests, CONNECTIONS, seconds, warm_up_s=0.0))
    return {stage: 1e6 * spent / len(load.answers) for stage, spent in told.items()}, plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=368_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    parser.add_argument("--root", type=Path, default=REPOSITORY / ".bench" / "service")
    given = parser.parse_args()
    make_release(given.root, given.items)
    stages, plain = measure(given.root, given.items, given.seconds)
    print(f"{processor_name()}; kernel {kernel()}; {given.items:,} items; microseconds a request")
    for stage, us in sorted(stages.items(), key=lambda each: -each[1]):
        print(f"  {stage:<32}{us:>8.1f}")
    total = sum(stages.values())
    print(f"  {'all, with timers':<32}{total:>8.1f}\n  {'all, without':<32}{plain:>8.1f}")
    stages = {stage: round(us, 1) for stage, us in stages.items()}
    head = {"benchmark": "stages", "cpu": processor_name(), "date": date.today().isoformat()}
    print(json.dumps({**head, "items": given.items, "stages_us": stages, "without": round(plain)}))


if __name__ == "__main__":
    main()

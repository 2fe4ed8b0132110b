"""What it costs to know hit rates: processor time of a request, in the service and in its Redis.

    python tests/benchmarks/quality.py [--items N] [--users N] [--rounds R] [--seconds S]

A real server on one core under a closed loop from another: of ten requests nine are users who post
a history, and one is an event. Nobody is observed, a tenth of the users, all of them, and all while
a canary runs, in turn, round after round; each number is the median of its rounds. The last line is
one JSON object.
"""

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

os.environ["OMP_NUM_THREADS"] = "1"

import psutil
from load import closed_loop, prepare
from load_data import make_release, sequences

from index.ann.processor import processor_name
from index.release.canary_file import CANARY, CanaryRelease, write_canary
from service import CONNECTIONS, REPOSITORY, K, checked, claim_cores, free_port, is_ready, start

# Share of the users who are observed, and of those whom a canary answers.
CASES = {"off": (0.0, 0.0), "a tenth": (0.1, 0.0), "all": (1.0, 0.0), "canary": (0.1, 0.5)}


@contextmanager
def serving(core: int, root: Path, observed: float) -> Iterator[tuple[int, psutil.Process]]:
    """Port and process of a server with an empty Redis."""
    with tempfile.TemporaryDirectory(prefix="re4-") as history:
        port = free_port()
        process = start(
            core, "service", releases=root, port=port, drain_s=0, log_level="error",
            embedded_redis_folder=history, quality_sample_rate=observed, redis_timeout_ms=1000,
        )  # fmt: skip
        try:
            while not is_ready(port):
                time.sleep(0.1)
            yield port, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.communicate()


def spent_s(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def measure(
    core: int, root: Path, case: str, canary: str, requests: list[bytes], seconds: float
) -> tuple[float, float]:
    """Microseconds of a request in the service and in its Redis."""
    observed, share = CASES[case]
    if share:
        write_canary(root, CanaryRelease(release=canary, share=share, started=time.time()))
    try:
        with serving(core, root, observed) as (port, server):
            parts = [server], server.children(recursive=True)
            closed_loop(port, requests, CONNECTIONS, 2.0)
            before = [spent_s(part) for part in parts]
            load = checked(closed_loop(port, requests, CONNECTIONS, seconds, warm_up_s=0.0))
            service, redis = (
                1e6 * (spent_s(part) - start) / len(load.answers)
                for part, start in zip(parts, before, strict=True)
            )
            return service, redis
    finally:
        (root / CANARY).unlink(missing_ok=True)


def requests_of(items: int, users: int) -> list[bytes]:
    requests = []
    for number, sequence in enumerate(sequences(items, users)):
        user = f"user-{number}"
        body = json.dumps({"user_id": user, "sequence": sequence, "k": K}).encode()
        requests.append(prepare("/recommend", body))
        if number % 9 == 8:
            event = json.dumps({"user_id": user, "item_id": sequence[-1]}).encode()
            requests.append(prepare("/events", event))
    return requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=30_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--root", type=Path, default=REPOSITORY / ".bench" / "service")
    given = parser.parse_args()
    for items in (given.items + 1, given.items):  # the canary's, then the live one
        make_release(given.root, items)
    core, canary = claim_cores(), f"random-{given.items + 1}"
    requests = requests_of(given.items, given.users)
    found = defaultdict(list)
    for _ in range(given.rounds):
        for case in CASES:
            found[case].append(measure(core, given.root, case, canary, requests, given.seconds))
    print(f"{processor_name()}; {given.items:,} items; microseconds a request: service, Redis")
    medians = {}
    for case, measured in found.items():
        medians[case] = [round(median(part), 1) for part in zip(*measured, strict=True)]
        print(f"  {case:<10}{medians[case][0]:>8}{medians[case][1]:>8}")
    print(json.dumps({"us": medians}))


if __name__ == "__main__":
    main()

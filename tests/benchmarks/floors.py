"""What HTTP alone costs: our floor beside frameworks that do less.

    python tests/benchmarks/floors.py [--items N] [--rounds R] [--seconds S] [--root DIR]

Microseconds of a server's core for a POST /recommend whose answer is ready, each server under a
closed loop in turn: sockets and event loop alone, Starlette reading the body, FastAPI validating
it, and our app, straight from the connection and through the framework. The last line is one JSON
object.
"""

import argparse
import json
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from statistics import median

from load import closed_loop, prepare
from load_data import make_release, sequences

from index.ann.processor import processor_name
from service import CONNECTIONS, PARTS, REPOSITORY, K, checked, claim_cores, serving

SERVERS = {
    "sockets and event loop": "bare",
    "Starlette, body read": "starlette",
    "FastAPI, body validated": "fastapi",
    "ours": "floor",
    "ours, through the framework": "framework",
}


def measure(root: Path, items: int, rounds: int, seconds: float) -> dict[str, float]:
    core = claim_cores()
    asked = sequences(items, 2000)
    (root / "sequences.json").write_text(json.dumps(asked))
    bodies = [json.dumps({"sequence": sequence, "k": K}).encode() for sequence in asked]
    requests = [prepare("/recommend", body) for body in bodies]
    with ExitStack() as stack:
        ports = {
            name: stack.enter_context(serving(core, root, PARTS, part))
            for name, part in SERVERS.items()
        }
        loads = [
            (name, checked(closed_loop(port, requests, CONNECTIONS, seconds)))
            for _ in range(rounds)
            for name, port in ports.items()
        ]
    return {name: median(1e6 / load.rate for each, load in loads if each == name) for name in ports}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=368_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of each measurement")
    parser.add_argument("--root", type=Path, default=REPOSITORY / ".bench" / "service")
    given = parser.parse_args()
    make_release(given.root, given.items)
    floors = measure(given.root, given.items, given.rounds, given.seconds)
    print(f"{processor_name()}; microseconds a request")
    for name, us in floors.items():
        print(f"  {name:<32}{us:>8.1f}")
    head = {"benchmark": "floors", "cpu": processor_name(), "date": date.today().isoformat()}
    print(json.dumps({**head, **{name: round(us, 1) for name, us in floors.items()}}))


if __name__ == "__main__":
    main()

"""What a server does at 2, 5 and 10 times the load that it can answer.

    python tests/benchmarks/overload.py [--items N] [--k K] [--rounds R] [--seconds S]
                                        [--factors 2,5,10]

A real server has one core and the load the other. What it can answer is measured by a closed loop,
before each overload and after, and in rounds, as a machine with other things to do is not as fast
all the time. Requests are due at a multiple of what it could answer, whatever comes back, and last
at half of it. For each multiple, over all rounds: goodput, the answers within the deadline, against
the mean of what could be answered before and after; how soon a refusal came; how many answers came
after the deadline; and how long after the overload anything was still refused. A refusal cannot
cost less than an answer of the bare event loop to whatever comes, which is measured too: what so
many of those would leave for answers is the limit of the goodput. The generator says how late it
was itself: where that is milliseconds, it had too little of its core for the other numbers to be
the server's. The last line is one JSON object.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import psutil
from load import Load, closed_loop, open_loop, percentile_ms, prepare
from load_data import make_release, sequences

from index.ann.processor import processor_name
from service import PARTS, REPOSITORY, K, claim_cores, kernel, serving

DEADLINE_MS = 250
CONNECTIONS = 32
MOST_CONNECTIONS = 2000
REFUSED = 503
# Of the promises: what is asked of each multiple; of the goodput, a share of its limit.
GOODPUT, REFUSAL_MS, NORMAL_S = 0.9, 10.0, 2.0


@dataclass(frozen=True)
class Overload:
    """One, with what could be answered at about that time, and what came after."""

    able_per_s: float
    over: Load
    after: Load


def measure(
    root: Path, items: int, k: int, factors: list[float], rounds: int, seconds: float
) -> dict[str, object]:
    core = claim_cores()
    bodies = [json.dumps({"sequence": s, "k": k}).encode() for s in sequences(items, 2000)]
    requests = [prepare("/recommend", body) for body in bodies]
    with serving(core, root, PARTS, "bare") as port:
        bare = cpu_each(port, requests, seconds)
    with serving(core, root, "service") as port:
        capacities = [closed_loop(port, requests, CONNECTIONS, seconds).rate]
        overloads: dict[float, list[Overload]] = {factor: [] for factor in factors}
        for _ in range(rounds):
            for factor in factors:
                before = capacities[-1]
                over, after = overload(port, requests, before, factor, seconds)
                capacities.append(closed_loop(port, requests, CONNECTIONS, seconds).rate)
                able = (before + capacities[-1]) / 2
                overloads[factor].append(Overload(able, over, after))
        told = [to_response(factor, each, bare) for factor, each in overloads.items()]
    return {
        "evidence": "overload",
        "passed": all(map(keeps, told)),
        "cpu": processor_name(),
        "kernel": kernel(),
        "items": items,
        "k": k,
        "rounds": rounds,
        "capacity_per_s": {
            "median": round(median(capacities)),
            "least": round(min(capacities)),
            "most": round(max(capacities)),
        },
        "bare_us": round(1e6 * bare, 1),
        "deadline_ms": DEADLINE_MS,
        "overloads": told,
    }


def cpu_each(port: int, requests: list[bytes], seconds: float) -> float:
    """Seconds of the server's own time for each request; it has more to spare than the load."""
    [server] = psutil.Process().children()
    before = server.cpu_times()
    load = closed_loop(port, requests, CONNECTIONS, seconds, warm_up_s=0.0)
    after = server.cpu_times()
    return (after.user + after.system - before.user - before.system) / len(load.answers)


def overload(
    port: int, requests: list[bytes], capacity: float, factor: float, seconds: float
) -> tuple[Load, Load]:
    """The overload, and the load that can be answered after it."""
    over = open_loop(port, requests, factor * capacity, seconds, 1.0, MOST_CONNECTIONS)
    return over, open_loop(port, requests, capacity / 2, 3.0, 0.0)


def to_response(factor: float, overloads: list[Overload], bare: float) -> dict[str, object]:
    answers = [answer for each in overloads for answer in each.over.answers]
    seconds = sum(each.over.seconds for each in overloads)
    able = fmean(each.able_per_s for each in overloads)
    good = [each for each in answers if each.status == 200]
    late = [each for each in good if each.done - each.sent > DEADLINE_MS / 1e3]
    refused = [each.done - each.sent for each in answers if each.status == REFUSED]
    goodput = (len(good) - len(late)) / seconds
    return {
        "factor": factor,
        "offered_per_s": round(len(answers) / seconds),
        "goodput_per_s": round(goodput),
        "goodput_share": round(goodput / able, 3),
        "goodput_limit": round(limit(factor, bare * able), 3),
        "answered_p99_ms": round(percentile_ms([e.done - e.sent for e in good] or [0], 99), 1),
        "answered_late": len(late),
        "refused": len(refused),
        "refused_p50_ms": round(percentile_ms(refused or [0], 50), 2),
        "refused_p99_ms": round(percentile_ms(refused or [0], 99), 2),
        "other_statuses": len(answers) - len(good) - len(refused),
        "generator_late_p99_ms": round(percentile_ms([e.sent - e.due for e in answers], 99), 2),
        "normal_after_s": round(max(normal_after(each.after) for each in overloads), 2),
    }


def limit(factor: float, bare: float) -> float:
    """The share of the capacity that is left; bare: a refusal's cost, as a share of an answer's."""
    return min(1.0, max(0.0, 1 - factor * bare) / (1 - bare))


def normal_after(load: Load) -> float:
    """When the last request was due that did not get its answer in time."""
    start = min(each.due for each in load.answers)
    amiss = [
        each.due - start
        for each in load.answers
        if each.status != 200 or each.done - each.due > DEADLINE_MS / 1e3
    ]
    return max(amiss, default=0.0)


def keeps(told: dict[str, object]) -> bool:
    """Whether it is as it should be."""
    number = {name: float(str(value)) for name, value in told.items()}
    return (
        number["goodput_share"] >= GOODPUT * number["goodput_limit"]
        and number["refused_p99_ms"] < REFUSAL_MS
        and number["answered_late"] == 0
        and number["other_statuses"] == 0
        and number["normal_after_s"] <= NORMAL_S
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=368_000)
    parser.add_argument("--k", type=int, default=K, help="items wanted by each request")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement")
    parser.add_argument("--factors", default="2,5,10", help="multiples of what can be answered")
    parser.add_argument("--root", type=Path, default=REPOSITORY / ".bench" / "service")
    given = parser.parse_args()
    make_release(given.root, given.items)
    factors = [float(factor) for factor in given.factors.split(",")]
    result = measure(given.root, given.items, given.k, factors, given.rounds, given.seconds)
    for told in result["overloads"]:  # type: ignore[attr-defined]
        print(told)
    print(json.dumps(result))
    raise SystemExit(not result["passed"])


if __name__ == "__main__":
    main()

"""Simulated traffic for the dashboard: each visitor requests candidates, then views an item.

A visitor replays the history of a random user of the training log, item by item, and is replaced
at its end. Every minute the program prints the hit rate: the share of visits whose next item was
among the candidates.
"""

import os
import random
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

from service.client import Client
from service.client.operations import CallError
from service.http.schemas.recommend import RecommendRequest
from service.store.events import Event
from training.data.readers import read_log
from training.nightly.config import read_night_config

CONCURRENT_VISITORS = 200
K = 50
_MINUTE_S = 60.0

Visitor = tuple[str, deque[str]]


def visitors(log: Path, rng: random.Random) -> Iterator[Visitor]:
    """Endless: a new user id each, and the items to view, oldest first."""
    interactions = read_log(log)
    items = interactions.item_ids[interactions.items].tolist()
    offsets = interactions.offsets.tolist()
    started = int(time.time())
    number = 0
    while True:
        user = rng.randrange(len(offsets) - 1)
        yield f"visitor-{started}-{number}", deque(items[offsets[user] : offsets[user + 1]])
        number += 1


def visit(client: Client, visitor: Visitor) -> str:
    """The outcome: hit, miss, or the name of the error."""
    user_id, items = visitor
    item = items.popleft()
    try:
        response = client.recommend(RecommendRequest(user_id=user_id, k=K))
        event_id = f"{user_id}-{len(items)}"
        client.add(Event(user_id=user_id, item_id=item, event="view", event_id=event_id))
    except CallError as error:
        return type(error).__name__
    return "hit" if any(hit.item_id == item for hit in response.items) else "miss"


def drive(client: Client, log: Path, visits_per_s: float, rng: random.Random) -> None:
    arrivals = visitors(log, rng)
    active = [next(arrivals) for _ in range(CONCURRENT_VISITORS)]
    outcomes: Counter[str] = Counter()
    reported_s = due_s = time.monotonic()
    while True:
        index = rng.randrange(CONCURRENT_VISITORS)
        outcomes[visit(client, active[index])] += 1
        if not active[index][1]:
            active[index] = next(arrivals)
        due_s += rng.expovariate(visits_per_s)
        time.sleep(max(0.0, due_s - time.monotonic()))
        if time.monotonic() - reported_s > _MINUTE_S:
            print(_summary(outcomes), flush=True)
            outcomes.clear()
            reported_s = time.monotonic()


def _summary(outcomes: Counter[str]) -> str:
    hit_rate = outcomes["hit"] / max(1, outcomes["hit"] + outcomes["miss"])
    counts = ", ".join(f"{name} {number}" for name, number in outcomes.most_common())
    return f"next item among the {K} candidates: {hit_rate:.2f} ({counts})"


def main(url: str, config_file: Path) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log = read_night_config(config_file).log
    if log is None:
        sys.exit(f"{config_file}: names no log to replay; set `log`")
    with Client(url, key=os.environ.get("KEY") or None) as client:
        drive(client, log, float(os.environ.get("VISITS_PER_SECOND", "5")), random.Random())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

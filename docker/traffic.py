"""Visitors, so that there is something to see: each asks for candidates and then takes an item.

A visitor takes, one after another, the items that some user of the nights' log took, whose tastes
are so the visitor's; whoever has taken all of them leaves, and another comes. Every minute it is
said for which share of the visits the item that was taken next had been among the candidates.
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
from service.http.schemas.histories import Event
from service.http.schemas.recommend import RecommendRequest
from training.data.readers import read_log
from training.nightly.config import read_night_config

AT_ONCE = 200
K = 50
_MINUTE_S = 60.0

Visitor = tuple[str, deque[str]]


def visitors(log: Path, rng: random.Random) -> Iterator[Visitor]:
    """Without end: a new user id each, and the items to take, oldest first."""
    read = read_log(log)
    items, offsets = read.item_ids[read.items].tolist(), read.offsets.tolist()
    arrived = int(time.time())
    number = 0
    while True:
        user = rng.randrange(len(offsets) - 1)
        yield f"visitor-{arrived}-{number}", deque(items[offsets[user] : offsets[user + 1]])
        number += 1


def visit(client: Client, visitor: Visitor) -> str:
    """How it went: hit, miss, or the error that there was."""
    user_id, wanted = visitor
    item = wanted.popleft()
    try:
        answer = client.recommend(RecommendRequest(user_id=user_id, k=K))
        event_id = f"{user_id}-{len(wanted)}"
        client.add(Event(user_id=user_id, item_id=item, event="view", event_id=event_id))
    except CallError as error:
        return type(error).__name__
    return "hit" if any(found.item_id == item for found in answer.items) else "miss"


def drive(client: Client, log: Path, visits_s: float, rng: random.Random) -> None:
    coming = visitors(log, rng)
    here = [next(coming) for _ in range(AT_ONCE)]
    outcomes: Counter[str] = Counter()
    told_s = due_s = time.monotonic()
    while True:
        place = rng.randrange(AT_ONCE)
        outcomes[visit(client, here[place])] += 1
        if not here[place][1]:
            here[place] = next(coming)
        due_s += rng.expovariate(visits_s)
        time.sleep(max(0.0, due_s - time.monotonic()))
        if time.monotonic() - told_s > _MINUTE_S:
            print(_told(outcomes), flush=True)
            outcomes.clear()
            told_s = time.monotonic()


def _told(outcomes: Counter[str]) -> str:
    share = outcomes["hit"] / max(1, outcomes["hit"] + outcomes["miss"])
    counts = ", ".join(f"{name} {number}" for name, number in outcomes.most_common())
    return f"next item among the {K} candidates: {share:.2f} ({counts})"


def main(url: str, settings: Path) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log = read_night_config(settings).log
    if log is None:
        sys.exit(f"{settings}: names no log whose users could come; set `log`")
    with Client(url, key=os.environ.get("KEY") or None) as client:
        drive(client, log, float(os.environ.get("VISITS_PER_SECOND", "5")), random.Random())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

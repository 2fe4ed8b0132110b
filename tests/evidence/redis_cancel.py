"""Calls of Redis that are cancelled under way: no answer holds anything of another user.

    python tests/evidence/redis_cancel.py [--calls N] [--seed S]

The store of the service, with real servers: one alone, one behind Sentinels, a Cluster, and one
behind a proxy that makes replies late, breaks connections off in the middle of them, or cuts them
short. Reads and writes, 64 at one time, are cancelled after random turns of the event loop or
random times, N on the first three and some on the last; with the budget of 50 ms and with one of
5 ms, which gives up by itself. Some of the reads are not cancelled, and tell whose answers they
were given: every history says whose it is. The last line is one JSON object; the status is 1 if any
answer held something of another user, or if none was answered.
"""

import argparse
import json
import math
import random
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import date
from pathlib import Path

import uvloop
from giving_up import Tally, fill, give_up
from redis_faults import proxied
from redises import HOST, Clustered, RedisServer, Watched, running

from service.settings import Settings
from service.store.histories import HistoryStore
from service.store.redis_client import ResilientRedis
from service.store.redis_url import address_of
from service.telemetry.metrics import Metrics

FAULTS = ("jitter", "reset", "truncation")
BUDGETS_S = (0.05, 0.005)
SPOILT_SHARE = 0.05  # of the calls, and as many after it


@asynccontextmanager
async def started(url: str) -> AsyncIterator[tuple[HistoryStore, ResilientRedis]]:
    settings = Settings(releases=Path(), redis_url=url, breaker_threshold=10**9)
    link = ResilientRedis(address_of(settings), settings, Metrics())
    await link.start()
    store = HistoryStore(link, settings, Metrics())
    link.budget_s = 5
    await fill(store)
    yield store, link
    await link.close()


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """The URL of each kind."""
    alone = RedisServer(folder)
    with (
        running(alone),
        Watched(folder).running() as watched,
        Clustered(folder).running() as clustered,
    ):
        yield {"one server": alone.url, "Sentinels": watched.url, "Cluster": clustered.url}


async def collect(calls: int, draw: random.Random) -> dict[str, Tally]:
    tallies = {}
    with tempfile.TemporaryDirectory(prefix="re4-") as folder, servers(Path(folder)) as urls:
        share = math.ceil(calls / len(urls) / len(BUDGETS_S))
        for kind, url in urls.items():
            async with started(url) as (store, link):
                for budget_s in BUDGETS_S:
                    link.budget_s = budget_s
                    name = f"{kind}, {budget_s * 1e3:g} ms"
                    tallies[name] = await _timed(name, store, share, draw)
        target = int(urls["one server"].rpartition(":")[2])
        with proxied(target) as (port, order):
            for fault in FAULTS:
                await order("none")()
                async with started(f"redis://{HOST}:{port}") as (store, link):
                    link.budget_s = BUDGETS_S[0]
                    for state in (fault, "none"):
                        await order(state)()
                        name = fault if state == fault else f"after {fault}"
                        tallies[name] = await _timed(name, store, int(SPOILT_SHARE * calls), draw)
    return tallies


async def _timed(name: str, store: HistoryStore, calls: int, draw: random.Random) -> Tally:
    start = time.perf_counter()
    tally = await give_up(store, calls, draw)
    print(f"{name:<20}{tally} in {time.perf_counter() - start:.1f} s", flush=True)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="cancelled, and some more")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    tallies = uvloop.run(collect(given.calls, random.Random(given.seed)))
    totals = {
        name: sum(getattr(tally, name) for tally in tallies.values())
        for name in ("answered", "cancelled", "unavailable", "foreign")
    }
    passed = totals["foreign"] == 0 and totals["answered"] > 0
    kinds = {name: vars(tally) for name, tally in tallies.items()}
    head = {"evidence": "redis-cancel", "date": date.today().isoformat(), "seed": given.seed}
    print(json.dumps({**head, **totals, "passed": passed, "kinds": kinds}))
    raise SystemExit(not passed)


if __name__ == "__main__":
    main()

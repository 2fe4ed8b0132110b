"""Cancels calls of Redis under way: no reply may hold anything of another user.

    python tests/evidence/redis_cancel.py [--calls N] [--seed S]

The service's store with real servers: a single one, one behind Sentinels, a Cluster, and one behind
a proxy that delays replies, breaks connections in the middle of them, or truncates them. Reads and
writes, 64 at one time, are cancelled after random iterations of the event loop or random times: N
of them on the first three, and some on the last; with a timeout of 50 ms and with one of 5 ms,
which itself ends calls. Some reads are not cancelled, and check whose replies they get: every
history says whose it is. The last line is one JSON object; the status is 1 if any reply held
something of another user, or if no call was answered.
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
from cancelled_calls import CallCounts, cancel_calls, store_histories
from redis_faults import proxied
from redis_servers import HOST, ClusterServers, RedisServer, SentinelServers, running

from service.settings import Settings
from service.store.histories import HistoryStore
from service.store.redis_client import ResilientRedis, deployment_of
from service.telemetry.metrics import Metrics

FAULTS = ("jitter", "reset", "truncation")
TIMEOUTS_S = (0.05, 0.005)
FAULTY_SHARE = 0.05  # of the calls, and as many after it


@asynccontextmanager
async def started(url: str, root: Path) -> AsyncIterator[tuple[HistoryStore, ResilientRedis]]:
    settings = Settings(releases=root, redis_url=url, breaker_threshold=10**9)
    redis = ResilientRedis(deployment_of(settings), settings, Metrics())
    await redis.start()
    store = HistoryStore(redis, settings, Metrics())
    redis.timeout_s = 5
    await store_histories(store)
    yield store, redis
    await redis.close()


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """The URL of each deployment."""
    single = RedisServer(folder)
    with (
        running(single),
        SentinelServers(folder).running() as sentinels,
        ClusterServers(folder).running() as cluster,
    ):
        yield {"one server": single.url, "Sentinels": sentinels.url, "Cluster": cluster.url}


async def collect(calls: int, draw: random.Random) -> dict[str, CallCounts]:
    counts_of = {}
    with tempfile.TemporaryDirectory(prefix="re4-") as folder, servers(Path(folder)) as urls:
        share = math.ceil(calls / len(urls) / len(TIMEOUTS_S))
        for deployment, url in urls.items():
            async with started(url, Path(folder)) as (store, redis):
                for timeout_s in TIMEOUTS_S:
                    redis.timeout_s = timeout_s
                    name = f"{deployment}, {timeout_s * 1e3:g} ms"
                    counts_of[name] = await _timed(name, store, share, draw)
        target = int(urls["one server"].rpartition(":")[2])
        with proxied(target) as (port, set_fault):
            for fault in FAULTS:
                await set_fault("none")()
                async with started(f"redis://{HOST}:{port}", Path(folder)) as (store, redis):
                    redis.timeout_s = TIMEOUTS_S[0]
                    for state in (fault, "none"):
                        await set_fault(state)()
                        name = fault if state == fault else f"after {fault}"
                        counts_of[name] = await _timed(name, store, int(FAULTY_SHARE * calls), draw)
    return counts_of


async def _timed(name: str, store: HistoryStore, calls: int, draw: random.Random) -> CallCounts:
    start = time.perf_counter()
    counts = await cancel_calls(store, calls, draw)
    print(f"{name:<20}{counts} in {time.perf_counter() - start:.1f} s", flush=True)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="cancelled, and some more")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    counts_of = uvloop.run(collect(arguments.calls, random.Random(arguments.seed)))
    totals = {
        name: sum(getattr(counts, name) for counts in counts_of.values())
        for name in ("answered", "cancelled", "unavailable", "foreign")
    }
    passed = totals["foreign"] == 0 and totals["answered"] > 0
    kinds = {name: vars(counts) for name, counts in counts_of.items()}
    head = {"evidence": "redis-cancel", "date": date.today().isoformat(), "seed": arguments.seed}
    print(json.dumps({**head, **totals, "passed": passed, "kinds": kinds}))
    raise SystemExit(not passed)


if __name__ == "__main__":
    main()

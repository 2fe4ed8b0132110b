"""What so many requests a second and items need: which parts, how many, what it costs.

    python tests/benchmarks/capacity.py [--requests 10000 100000 1000000] [--items 1000000 ...]

Every assumption is an argument, and its default is a figure that a README states, or is marked as
not measured here. A request is answered in one of three ways, the cheapest that the items allow:

faiss      every replica holds the whole release. Search grows with the items as --growth-us says.
split      the catalogue is divided among services of at most --split-items, as index/README.md
           describes: each request goes to all of them, and each costs a whole request.
milvus     the search is in Milvus; replicas hold ids and map the vectors, and wait without work.

The table is Markdown, and is the one in docker/CAPACITY.md.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

HEADER = (
    "requests/s",
    "items",
    "search",
    "service cores",
    "memory a replica, GiB",
    "Milvus cores",
    "Milvus memory, GiB",
    "Redis masters",
    "cost a month, $",
)


@dataclass(frozen=True)
class Assumption:
    """The default of an argument, and where it is from."""

    name: str
    default: float
    meaning: str


ASSUMPTIONS = (
    Assumption("floor-us", 145, "HTTP and the event loop, a request (service/README.md, Speed)"),
    Assumption("encode-us", 52, "encoding in a batch of 16 (the same table)"),
    Assumption("stored-us", 60, "reading a stored history, a request; not measured here"),
    Assumption("search-factor", 1.47, "search in a server, 317 us, against that alone, 216"),
    Assumption("efficiency", 0.89, "saturation as a share of the parts' sum (service/README.md)"),
    Assumption("load", 0.6, "share of a core's capacity that is used: the autoscaler's target"),
    Assumption("own-bytes", 60, "memory of a worker's own, an item (index/README.md, Growth)"),
    Assumption("mapped-bytes", 328, "release on disk, mapped, an item (index/README.md, Growth)"),
    Assumption("base-gib", 0.21, "memory of a worker besides (index/README.md, Growth)"),
    Assumption("split-items", 10e6, "most items of one service: the largest that was measured"),
    Assumption(
        "milvus-us", 4000, "core time of Milvus for the K vectors of a request; not measured"
    ),
    Assumption(
        "milvus-growth", 0.15, "of it more for each tenfold of a million items; not measured"
    ),
    Assumption("milvus-bytes", 400, "memory of Milvus, an item: 256 of the vector, HNSW with M 16"),
    Assumption("client-us", 400, "calling Milvus and scoring again, a request; not measured here"),
    Assumption(
        "redis-per-s", 80_000, "history reads and events of a master a second; not measured"
    ),
    Assumption("core-cost", 25, "$ a month for a core with 4 GiB; your provider's price"),
    Assumption("gib-cost", 3, "$ a month for each further GiB; your provider's price"),
)
GROWTH_US = ((10_000, 140.0), (100_000, 189.0), (1_000_000, 239.0), (10_000_000, 509.0))
_GIB = 1 << 30
_MAX_REDIS = 64  # partitions of users, each on one master
_MEMORY_WITH_CORE = 4  # GiB


def search_us(items: float) -> float:
    """Microseconds of search and merge, between the measured sizes by their logarithms."""
    points = [(math.log10(size), us) for size, us in GROWTH_US]
    at = min(max(math.log10(items), points[0][0]), points[-1][0])
    for (low, low_us), (high, high_us) in pairwise(points):
        if at <= high:
            return low_us + (high_us - low_us) * (at - low) / (high - low)
    raise AssertionError("the last point is the highest; this is a bug")


@dataclass(frozen=True)
class Need:
    """search: the way. cores, memory: of the service, in all, and GiB of one replica of a core."""

    search: str
    cores: int
    replica_gib: float
    milvus_cores: int = 0
    milvus_gib: float = 0.0
    redis: int = 1

    def cost(self, given: argparse.Namespace) -> float:
        further = max(0.0, self.replica_gib - _MEMORY_WITH_CORE) * self.cores
        further += max(0.0, self.milvus_gib - _MEMORY_WITH_CORE * self.milvus_cores)
        return (self.cores + self.milvus_cores + self.redis) * given.core_cost + (
            further * given.gib_cost
        )


def cores(requests: float, us: float, given: argparse.Namespace) -> int:
    """So many, each used to its share, do `us` of work for each request."""
    return max(2, math.ceil(requests * us / 1e6 / given.load))


def server_cores(requests: float, us: float, given: argparse.Namespace) -> int:
    work = given.floor_us + given.stored_us + given.encode_us + us
    return cores(requests, work / given.efficiency, given)


def with_files(requests: float, items: float, given: argparse.Namespace) -> Need:
    """One service, or several with a part of the catalogue each."""
    parts = math.ceil(items / given.split_items)
    own = items / parts
    needed = parts * server_cores(requests, given.search_factor * search_us(own), given)
    gib = given.base_gib + own * (given.own_bytes + given.mapped_bytes) / _GIB
    name = "faiss" if parts == 1 else f"split in {parts}"
    return Need(name, needed, gib, redis=redis(requests, given))


def with_milvus(requests: float, items: float, given: argparse.Namespace) -> Need:
    """Of the vectors, which are mapped, those that are asked for are in memory: not counted."""
    grown = 1 + given.milvus_growth * max(0.0, math.log10(items / 1e6))
    return Need(
        "milvus",
        server_cores(requests, given.client_us, given),
        given.base_gib + items * given.own_bytes / _GIB,
        cores(requests, given.milvus_us * grown, given),
        items * given.milvus_bytes / _GIB,
        redis(requests, given),
    )


def redis(requests: float, given: argparse.Namespace) -> int:
    return min(_MAX_REDIS, max(1, math.ceil(requests / given.redis_per_s / given.load)))


def cheapest(requests: float, items: float, given: argparse.Namespace) -> Need:
    ways = (with_files(requests, items, given), with_milvus(requests, items, given))
    return min(ways, key=lambda need: need.cost(given))


def table(given: argparse.Namespace) -> str:
    rows = [HEADER, ("---:", "---:", "---", *["---:"] * (len(HEADER) - 3))]
    for requests in given.requests:
        for items in given.items:
            need = cheapest(requests, items, given)
            rows.append(
                (
                    f"{requests:,.0f}",
                    f"{items:,.0f}",
                    need.search,
                    f"{need.cores:,}",
                    f"{need.replica_gib:,.1f}",
                    f"{need.milvus_cores:,}" if need.milvus_cores else "",
                    f"{need.milvus_gib:,.0f}" if need.milvus_cores else "",
                    f"{need.redis}",
                    f"{need.cost(given):,.0f}",
                )
            )
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines[1] = lines[1].replace(" ", "")
    return "\n".join(lines)


def assumptions() -> str:
    """The arguments with their defaults, as a Markdown table."""
    rows = ["| argument | default | meaning |", "|---|---:|---|"]
    rows += [f"| `--{a.name}` | {a.default:g} | {a.meaning} |" for a in ASSUMPTIONS]
    return "\n".join(rows)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=float, nargs="+", default=[1e4, 1e5, 1e6])
    parser.add_argument("--items", type=float, nargs="+", default=[1e6, 1e7, 1e8, 1e9])
    for a in ASSUMPTIONS:
        parser.add_argument(f"--{a.name}", type=float, default=a.default, help=a.meaning)
    return parser.parse_args(words)


if __name__ == "__main__":
    print(table(parse()))

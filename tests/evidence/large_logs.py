"""Logs larger than memory: time and peak memory of both engines, and the same bytes from them.

    python tests/evidence/large_logs.py [--rows 1000000 10000000 100000000] [--memory-limit 4GiB]
        [--memory-up-to 10000000] [--folder DIR]

For each number of rows, a synthetic log is written as Parquet files of two million rows: ten rows a
user, items by a power law, times in whole minutes, so that many are tied, and one row in a hundred
twice. It is read, filtered to its 5-core, packed and split as a fit does, in a process of its own
for each engine: DuckDB, and memory for logs of up to --memory-up-to rows. Peak memory is the
largest resident set of that process, Python, torch and DuckDB included; seconds are wall-clock, of
the whole process. A digest of all that a fit is given shows that both give the same. Fails if it
differs, or if DuckDB takes more than the limit.
Prints a Markdown table; the last line is one JSON object.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from sizes import cpu, run

PART_ROWS = 2_000_000
ROWS_A_USER, ROWS_AN_ITEM = 10, 100
FIRST, MINUTES = 1.6e9, 180 * 24 * 60

Summary = dict[str, Any]


def write_log(folder: Path, rows: int) -> None:
    """In a process of its own: the peak of a child process includes the memory of its parent."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(rows)
    users, items = rows // ROWS_A_USER, max(rows // ROWS_AN_ITEM, 100)
    for part, start in enumerate(range(0, rows, PART_ROWS)):
        size = min(PART_ROWS, rows - start)
        columns = {
            "user_id": random.integers(users, size=size),
            "item_id": np.minimum((items * random.random(size) ** 3).astype(np.int64), items - 1),
            "timestamp": FIRST + 60.0 * random.integers(MINUTES, size=size),
        }
        twice = 1 + np.flatnonzero(random.random(size - 1) < 0.01)
        for values in columns.values():
            values[twice] = values[twice - 1]
        for role in ("user", "item"):
            numbers = pa.array(columns[f"{role}_id"]).cast(pa.string())
            columns[f"{role}_id"] = pa.compute.binary_join_element_wise(role, numbers, "-")
        pq.write_table(pa.table(columns), folder / f"part-{part:05}.parquet")


def read(log: Path, engine: str, limit: str, spill: Path) -> Summary:
    """Read, filter, pack and split, as a fit does."""
    from training.config import read_config
    from training.data.array_store import blocks
    from training.fitting.fit import prepare_log

    options = {"log_engine": engine, "memory_limit": limit, "spill_directory": spill}
    data = prepare_log(log, None, read_config(None, options))
    sha256 = hashlib.sha256()
    for packed in (data.log, data.split.train):
        for array in (packed.rows, packed.offsets, packed.times):
            for (part,) in blocks(array):
                sha256.update(part)
        for user in packed.user_ids:
            sha256.update(user.encode() + b"\0")
    for item in data.catalog.ids:
        sha256.update(item.encode() + b"\0")
    sha256.update(data.catalog.popularity)
    for case in (*data.split.validation, *data.split.test):
        sha256.update(repr(case).encode())
    return {
        "interactions": len(data.log.rows),
        "users": len(data.log),
        "items": len(data.catalog),
        "digest": sha256.hexdigest(),
    }


def measure(folder: Path, rows: int, engines: list[str], limit: str) -> list[Summary]:
    log, spill = folder / "log", folder / "spill"
    log.mkdir()
    spill.mkdir()
    run(__file__, "--write", log, "--rows", rows)
    summaries = []
    for engine in engines:
        child = run(__file__, "--read", log, engine, limit, spill, threads=None)
        summary = {
            "rows": rows,
            "engine": engine,
            "s": round(child.wall_s, 1),
            "cpu_s": round(child.cpu_s, 1),
            "peak_gib": round(child.peak_mib / 1024, 2),
            **child.summary,
        }
        print(summary, file=sys.stderr, flush=True)
        summaries.append(summary)
    return summaries


def table(summaries: list[Summary]) -> str:
    lines = [
        "| rows | engine | seconds | CPU seconds | peak memory, GiB |",
        "|---:|---|---:|---:|---:|",
    ]
    lines += [
        f"| {s['rows']:,} | {s['engine']} | {s['s']:,.0f} | {s['cpu_s']:,.0f} | {s['peak_gib']} |"
        for s in summaries
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**6, 10**7, 10**8])
    parser.add_argument("--memory-limit", default="4GiB", help="of the process, with DuckDB")
    parser.add_argument("--memory-up-to", type=int, default=10**7, help="rows read in memory, too")
    parser.add_argument("--folder", type=Path, help="where there is space: 100 bytes a row")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--read", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_log(options.write, *options.rows)
        return 0
    if options.read:
        log, engine, limit, spill = options.read
        print(json.dumps(read(Path(log), engine, limit, Path(spill))))
        return 0
    summaries: list[Summary] = []
    for rows in options.rows:
        engines = ["duckdb", *(["memory"] if rows <= options.memory_up_to else [])]
        with tempfile.TemporaryDirectory(prefix="re4-large-", dir=options.folder) as folder:
            summaries += measure(Path(folder), rows, engines, options.memory_limit)
    digests = {(s["rows"], s["digest"]) for s in summaries}
    limit = float(options.memory_limit.removesuffix("GiB"))
    within = all(s["peak_gib"] <= limit for s in summaries if s["engine"] == "duckdb")
    passed = within and len(digests) == len({s["rows"] for s in summaries})
    print(table(summaries))
    machine = {"cpu": cpu(), "cores": os.cpu_count()}
    print(json.dumps({"evidence": "large_logs", "passed": passed, **machine, "logs": summaries}))
    return not passed


if __name__ == "__main__":
    sys.exit(main())

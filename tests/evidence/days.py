"""Simulated days on a real log, replayed in order of time: what a nightly run is worth next day.

    python tests/evidence/days.py LOG --out DIR [--days 7] [--share 0.05] [--users 0]
                                  [--variants warm,cold,day-0,no-refit] [--set KEY=VALUE]

The newest interactions of LOG are cut into --days parts of --share of the log each, and their times
are changed so that each part is a day; the earlier ones are the base log. Run 0 trains on the base.
On each day the live release of every variant is evaluated on the items of the day's users; the
history is what they had before, or half of the day for new users. Then the day's events are
exported, and each variant has its nightly run, with its gate. --set is a setting of the run, such
as fit.epochs=5; --users keeps a random sample of so many users. days.md, days.png and days.json are
written into DIR, a new folder that also holds the roots. The last line is one JSON object.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from index.release.manifest import RELEASES
from index.release.reading import read_current
from training.data.interactions import Interactions
from training.data.readers import read_log
from training.evaluation.champion_challenger import day_metrics, day_popularity
from training.evaluation.evaluate import open_retriever
from training.evaluation.holdout_day import DayCase, day_cases
from training.experiments.compare import parse_setting
from training.nightly.config import read_night_config
from training.nightly.outcome import Outcome
from training.nightly.run import run_nightly

METRIC = "recall@50"
POPULAR = "popular"
DAY_S = 86_400
FIRST_DAY = 1_767_225_600  # 2026-01-01, the first simulated day
VARIANTS: dict[str, list[tuple[str, Any]]] = {
    "warm": [],
    "cold": [("cold", True)],
    "no-refit": [("refit_epochs", 0)],
    "day-0": [],
}


def replay(log: Interactions, days: int, share: float, users: int) -> Interactions:
    """The log with the times of its newest interactions changed to consecutive days."""
    user_of = log.users
    if users:
        sample = np.random.default_rng(0).permutation(len(log.user_ids))[:users]
        kept = np.isin(user_of, sample)
    else:
        kept = np.ones(len(user_of), dtype=bool)
    user_of, items, times = user_of[kept], log.items[kept], log.times[kept]
    order = np.lexsort((user_of, times))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    # In days since the first simulated one; earlier interactions have negative days.
    day = (rank - (1 - days * share) * len(order)) / (share * len(order))
    return Interactions.from_rows(
        user_of, items, FIRST_DAY + np.floor(day * DAY_S), log.user_ids, log.item_ids
    )


def table_of(log: Interactions, first: float, end: float) -> pa.Table:
    keep = (log.times >= first) & (log.times < end)
    users = np.repeat(log.user_ids, np.diff(log.offsets))[keep]
    columns = {
        "user_id": pa.array(users, pa.string()),
        "item_id": pa.array(log.item_ids[log.items[keep]], pa.string()),
        "timestamp": log.times[keep],
    }
    return pa.table(columns)


def export(log: Interactions, day: int, events: Path) -> None:
    """Write the day as the service exports it."""
    start = FIRST_DAY + day * DAY_S
    table = table_of(log, start, start + DAY_S)
    ids = pa.array([f"{day}-{number}" for number in range(len(table))])
    table = table.append_column("event", pa.nulls(len(table), pa.string()))
    folder = events / f"date={datetime.fromtimestamp(start, UTC):%Y-%m-%d}"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.append_column("event_id", ids), folder / "events.parquet")


def before(log: Interactions, end: float) -> Interactions:
    keep = log.times < end
    kept = log.users[keep], log.items[keep], log.times[keep]
    return Interactions.from_rows(*kept, log.user_ids, log.item_ids)


def live_metric(log: Interactions, cases: Sequence[DayCase], root: Path) -> float:
    """The mean metric of the live release of a root."""
    current = read_current(root)
    assert current is not None
    _, retriever = open_retriever(root / RELEASES / current)
    return float(day_metrics(log, cases, retriever)[METRIC].mean())


def run_night(out: Path, variant: str, day: int, settings: list[tuple[str, Any]]) -> Outcome:
    """The nightly run of a variant after a day, 0 the first; -1 is run 0."""
    run_0 = [("holdout_fraction", 0.1), ("min_holdout_users", 1)]
    variant_settings = VARIANTS[variant] if day >= 0 else run_0
    overrides = [
        ("root", str(out / variant)),
        ("events", str(out / "events")),
        ("log", str(out / "base.parquet")),
        ("until", FIRST_DAY + (day + 1) * DAY_S),
        ("plots", False),
        *variant_settings,
        *settings,
    ]
    outcome = run_nightly(read_night_config(None, overrides), lambda text: None)
    if outcome.outcome not in ("published", "refused", "nothing-new"):
        sys.exit(f"{variant}, day {day}: {outcome.sentence}")
    return outcome


def simulate(
    log: Interactions, out: Path, variants: list[str], days: int, settings: list[tuple[str, Any]]
) -> list[dict[str, Any]]:
    """A record a day: the metric by variant, and the outcomes of the runs after it."""
    pq.write_table(table_of(log, -np.inf, FIRST_DAY), out / "base.parquet")
    first = variants[0]
    print(run_night(out, first, -1, settings).sentence, file=sys.stderr)
    for variant in variants[1:]:
        if not (out / variant).exists():
            shutil.copytree(out / first, out / variant)
    records = []
    for day in range(days):
        start = FIRST_DAY + day * DAY_S
        known = before(log, start + DAY_S)
        cases = day_cases(known, start, all_users=True)
        record: dict[str, Any] = {"day": day + 1, "users": len(cases)}
        record |= {variant: live_metric(known, cases, out / variant) for variant in variants}
        record[POPULAR] = float(day_popularity(known, start, cases)[METRIC].mean())
        export(log, day, out / "events")
        record["nights"] = {}
        for variant in variants:
            if variant == "day-0" or day == days - 1:
                continue
            started = time.process_time()
            outcome = run_night(out, variant, day, settings)
            seconds = round(time.process_time() - started, 1)
            record["nights"][variant] = {"outcome": outcome.outcome, "cpu_s": seconds}
        print(json.dumps(record), file=sys.stderr)
        records.append(record)
    return records


def write_table(path: Path, records: list[dict[str, Any]], names: list[str]) -> dict[str, float]:
    means = {name: float(np.mean([record[name] for record in records])) for name in names}
    from_day_2 = {name: float(np.mean([record[name] for record in records[1:]])) for name in names}
    lines = [["day", "users", *names], ["---:"] * (len(names) + 2)]
    for record in records:
        cells = (f"{record[name]:.4f}" for name in names)
        lines += [[str(record["day"]), str(record["users"]), *cells]]
    lines.append(["mean", "", *(f"{means[name]:.4f}" for name in names)])
    lines.append(["from day 2", "", *(f"{from_day_2[name]:.4f}" for name in names)])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    path.write_text(f"Next-day {METRIC}\n\n{text}", encoding="utf-8")
    return from_day_2


def plot(path: Path, records: list[dict[str, Any]], names: list[str]) -> None:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    days = [record["day"] for record in records]
    for name in names:
        axes.plot(days, [record[name] for record in records], marker=".", label=name)
    axes.set_xlabel("simulated day")
    axes.set_ylabel(f"next-day {METRIC}")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--users", type=int, default=0)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--set", action="append", default=[], dest="settings")
    options = parser.parse_args()
    torch.set_num_threads(1)
    out: Path = options.out
    out.mkdir(parents=True)
    variants = options.variants.split(",")
    log = replay(read_log(options.log), options.days, options.share, options.users)
    settings = [parse_setting(text) for text in options.settings]
    records = simulate(log, out, variants, options.days, settings)
    names = [*variants, POPULAR]
    from_day_2 = write_table(out / "days.md", records, names)
    plot(out / "days.png", records, names)
    summary = {"log": options.log.name, "metric": METRIC, "from_day_2": from_day_2, "days": records}
    (out / "days.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()

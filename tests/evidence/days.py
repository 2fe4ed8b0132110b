"""Simulated days on a real log, replayed in order of time: what a night is worth the next day.

    python tests/evidence/days.py LOG --out DIR [--days 7] [--share 0.05] [--users 0]
                                  [--variants warm,cold,day-0,no-refit] [--set KEY=VALUE]

The newest interactions of LOG are cut into equal days of --share of them each, and their times are
moved so that each stretch is a day; what came before is the base log. Night 0 trains on the base.
On each day every release that is live is asked for what the users take that day, shown what they
took before, or half of the day if that is nothing; then the day's events are exported, and each
variant has its night, gate and all. --set is a setting of the night, as fit.epochs=5; --users keeps
so many users, drawn by chance. days.md, days.png and days.json go into DIR, a new folder, where
the roots are too. The last line is one JSON object.
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
from training.evaluation.champion_challenger import measure, popular
from training.evaluation.evaluate import open_retriever
from training.evaluation.holdout_day import Asked, asked
from training.experiments.compare import setting
from training.nightly.config import read_night_config
from training.nightly.run import Outcome, nightly

METRIC = "recall@50"
POPULAR = "popular"
DAY_S = 86_400
FIRST = 1_767_225_600  # 2026-01-01, the first simulated day
OF_VARIANT: dict[str, list[tuple[str, Any]]] = {
    "warm": [],
    "cold": [("cold", True)],
    "no-refit": [("refit_epochs", 0)],
    "day-0": [],
}


def replayed(log: Interactions, days: int, share: float, users: int) -> Interactions:
    """The log with the times of its newest interactions moved into days that follow each other."""
    who = np.repeat(np.arange(len(log.user_ids), dtype=np.int32), np.diff(log.offsets))
    if users:
        drawn = np.random.default_rng(0).permutation(len(log.user_ids))[:users]
        kept = np.isin(who, drawn)
    else:
        kept = np.ones(len(who), dtype=bool)
    who, items, times = who[kept], log.items[kept], log.times[kept]
    order = np.lexsort((who, times))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    # In units of a day, 0 is the first: what came before lies in the days before it.
    moved = (place - (1 - days * share) * len(order)) / (share * len(order))
    return Interactions.from_rows(
        who, items, FIRST + np.floor(moved * DAY_S), log.user_ids, log.item_ids
    )


def rows(log: Interactions, first: float, end: float) -> pa.Table:
    keep = (log.times >= first) & (log.times < end)
    users = np.repeat(log.user_ids, np.diff(log.offsets))[keep]
    columns = {
        "user_id": pa.array(users, pa.string()),
        "item_id": pa.array(log.item_ids[log.items[keep]], pa.string()),
        "timestamp": log.times[keep],
    }
    return pa.table(columns)


def export(log: Interactions, day: int, events: Path) -> None:
    """As the event log would have the day."""
    start = FIRST + day * DAY_S
    table = rows(log, start, start + DAY_S)
    ids = pa.array([f"{day}-{number}" for number in range(len(table))])
    table = table.append_column("event", pa.nulls(len(table), pa.string()))
    folder = events / f"date={datetime.fromtimestamp(start, UTC):%Y-%m-%d}"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.append_column("event_id", ids), folder / "events.parquet")


def before(log: Interactions, end: float) -> Interactions:
    users = np.repeat(np.arange(len(log.user_ids), dtype=np.int32), np.diff(log.offsets))
    keep = log.times < end
    kept = users[keep], log.items[keep], log.times[keep]
    return Interactions.from_rows(*kept, log.user_ids, log.item_ids)


def found(log: Interactions, cases: Sequence[Asked], root: Path) -> float:
    """The metric of the live release on the cases."""
    current = read_current(root)
    assert current is not None
    _, retriever = open_retriever(root / RELEASES / current)
    return float(measure(log, cases, retriever)[METRIC].mean())


def night(out: Path, variant: str, day: int, settings: list[tuple[str, Any]]) -> Outcome:
    """Of a variant's root, after the day that many days after the first; -1 is night 0."""
    first_night = [("holdout_fraction", 0.1), ("min_holdout_users", 1)]
    extra = OF_VARIANT[variant] if day >= 0 else first_night
    given = [
        ("root", str(out / variant)),
        ("events", str(out / "events")),
        ("log", str(out / "base.parquet")),
        ("until", FIRST + (day + 1) * DAY_S),
        ("plots", False),
        *extra,
        *settings,
    ]
    outcome = nightly(read_night_config(None, given), lambda said: None)
    if outcome.outcome not in ("published", "refused", "nothing-new"):
        sys.exit(f"{variant}, day {day}: {outcome.sentence}")
    return outcome


def simulate(
    log: Interactions, out: Path, variants: list[str], days: int, settings: list[tuple[str, Any]]
) -> list[dict[str, Any]]:
    """A record a day: the metric by variant, and how the night after it ended."""
    pq.write_table(rows(log, -np.inf, FIRST), out / "base.parquet")
    first = variants[0]
    print(night(out, first, -1, settings).sentence, file=sys.stderr)
    for variant in variants[1:]:
        if not (out / variant).exists():
            shutil.copytree(out / first, out / variant)
    records = []
    for day in range(days):
        start = FIRST + day * DAY_S
        known = before(log, start + DAY_S)
        cases = asked(known, start, everybody=True)
        record: dict[str, Any] = {"day": day + 1, "users": len(cases)}
        record |= {variant: found(known, cases, out / variant) for variant in variants}
        record[POPULAR] = float(popular(known, start, cases)[METRIC].mean())
        export(log, day, out / "events")
        record["nights"] = {}
        for variant in variants:
            if variant == "day-0" or day == days - 1:
                continue
            began = time.process_time()
            outcome = night(out, variant, day, settings)
            seconds = round(time.process_time() - began, 1)
            record["nights"][variant] = {"outcome": outcome.outcome, "cpu_s": seconds}
        print(json.dumps(record), file=sys.stderr)
        records.append(record)
    return records


def write_table(path: Path, records: list[dict[str, Any]], names: list[str]) -> dict[str, float]:
    means = {name: float(np.mean([record[name] for record in records])) for name in names}
    later = {name: float(np.mean([record[name] for record in records[1:]])) for name in names}
    lines = [["day", "users", *names], ["---:"] * (len(names) + 2)]
    for record in records:
        cells = (f"{record[name]:.4f}" for name in names)
        lines += [[str(record["day"]), str(record["users"]), *cells]]
    lines.append(["mean", "", *(f"{means[name]:.4f}" for name in names)])
    lines.append(["from day 2", "", *(f"{later[name]:.4f}" for name in names)])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    path.write_text(f"Next-day {METRIC}\n\n{text}", encoding="utf-8")
    return later


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
    parser.add_argument("--variants", default=",".join(OF_VARIANT))
    parser.add_argument("--set", action="append", default=[], dest="settings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out: Path = arguments.out
    out.mkdir(parents=True)
    variants = arguments.variants.split(",")
    log = replayed(read_log(arguments.log), arguments.days, arguments.share, arguments.users)
    settings = [setting(text) for text in arguments.settings]
    records = simulate(log, out, variants, arguments.days, settings)
    names = [*variants, POPULAR]
    later = write_table(out / "days.md", records, names)
    plot(out / "days.png", records, names)
    told = {"log": arguments.log.name, "metric": METRIC, "from_day_2": later, "days": records}
    (out / "days.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(told))


if __name__ == "__main__":
    main()

"""What new items beside the release are worth: recall on targets that the release does not know.

    python tests/evidence/newcomers.py LOG --out DIR [--known 0.65] [--heard 0.02,0.05,0.1]
                                       [--next 0.05] [--users 2] [--epochs 30]

A release is trained on the oldest interactions of LOG, --known of them, and not again. Then events
are heard, --heard of the log, and new items placed by those who took them; and each user of the
next --next of the log, who has a known item in the history, is asked about: recall@50 of the answer
for what is taken there, where no item is told twice. Beside it, the 50 most popular items of all
that was heard, and of the new items alone. Users with new items in their history are also asked
about as if these could not be read there. The draft is kept in DIR. A Markdown table, then one JSON
object.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index.retrieval.delta import Delta, cold_start_vector, median_norm, user_context
from index.retrieval.retriever import Query, Retriever
from training.config import read_config
from training.data.interactions import Interactions
from training.data.readers import read_log
from training.evaluation.evaluate import open_retriever
from training.fitting.fit import fit

K = 50
_BATCH = 256


class Asked(NamedTuple):
    """A user: what was taken so far, and what is taken next."""

    history: list[str]
    relevant: set[str]


class Log(NamedTuple):
    """Interactions in order of time."""

    users: list[str]
    items: list[str]


def in_order(log: Interactions) -> Log:
    who = np.repeat(np.arange(len(log.user_ids)), np.diff(log.offsets))
    order = np.lexsort((who, log.times))
    return Log(log.user_ids[who[order]].tolist(), log.item_ids[log.items[order]].tolist())


def trained(log: Log, known: int, folder: Path, epochs: int) -> Retriever:
    drafts = [*folder.glob("root/drafts/*")]
    if not drafts:
        columns = {"user_id": log.users[:known], "item_id": log.items[:known]}
        times = np.arange(known, dtype=np.float64)
        pq.write_table(pa.table({**columns, "timestamp": times}), folder / "known.parquet")
        config = read_config(
            None, {"min_user_interactions": 2, "min_item_interactions": 3, "epochs": epochs}, "best"
        )
        drafts = [fit(folder / "known.parquet", folder / "root", config)]
    return open_retriever(drafts[0])[1]


def hear(
    retriever: Retriever, log: Log, known: int, until: int, users: int
) -> tuple[Delta | None, dict[str, list[str]]]:
    """The new items placed, and the histories of all users."""
    histories: dict[str, list[str]] = defaultdict(list)
    stands: dict[str, dict[str, list[int]]] = defaultdict(dict)
    rows = retriever.catalog.rows(log.items[:until])
    for place, row in enumerate(rows):
        user, item = log.users[place], log.items[place]
        if not row and place >= known:
            before = [each for each in retriever.catalog.rows(histories[user]) if each]
            if before:
                stands[item][user] = before
        histories[user].append(item)
    length = median_norm(retriever.vectors)
    placed = {
        item: cold_start_vector(
            [user_context(retriever.vectors, rows) for rows in takes.values()], length
        )
        for item, takes in stands.items()
        if len(takes) >= users
    }
    return (Delta.of(placed) if placed else None), histories


def next_users(
    retriever: Retriever, log: Log, histories: Mapping[str, list[str]], first: int, end: int
) -> list[Asked]:
    relevant: dict[str, set[str]] = defaultdict(set)
    for user, item in zip(log.users[first:end], log.items[first:end], strict=True):
        relevant[user].add(item)
    return [
        Asked(histories[user], wanted)
        for user, wanted in relevant.items()
        if user in histories and any(retriever.catalog.rows(histories[user]))
    ]


def answers(retriever: Retriever, cases: Sequence[Asked], delta: Delta | None) -> list[list[str]]:
    ids = [*retriever.catalog.ids, *(delta.ids if delta else ())]
    queries = [Query(case.history, K, exclude_seen=False) for case in cases]
    return [
        [ids[row - 1] for row in answer.rows.tolist()]
        for first in range(0, len(queries), _BATCH)
        for answer in retriever.recommend(queries[first : first + _BATCH], delta=delta)
    ]


def recall(cases: Sequence[Asked], found: Sequence[Sequence[str]], among: set[str] | None) -> float:
    """Mean over those who take any of the items; among: None is all items."""
    shares = []
    for case, items in zip(cases, found, strict=True):
        wanted = case.relevant if among is None else case.relevant & among
        if wanted:
            shares.append(len(wanted & set(items)) / len(wanted))
    return float(np.mean(shares)) if shares else float("nan")


def with_any(cases: Sequence[Asked], items: set[str], newest: int) -> list[Asked]:
    """Those who have any of the items among the newest of their history."""
    return [case for case in cases if items.intersection(case.history[-newest:])]


def measure(
    retriever: Retriever, log: Log, known: int, heard: float, after: float, users: int
) -> dict[str, float]:
    size = len(log.items)
    until = known + round(heard * size)
    end = min(until + round(after * size), size)
    delta, histories = hear(retriever, log, known, until, users)
    cases = next_users(retriever, log, histories, until, end)
    old = set(retriever.catalog.ids)
    new = {item for case in cases for item in case.relevant} - old
    counts = Counter(log.items[:until])
    popular = [item for item, _ in counts.most_common(K)]
    fresh = Counter(item for item in log.items[known:until] if item not in old)
    popular_new = [item for item, _ in fresh.most_common(K)]
    without, beside = answers(retriever, cases, None), answers(retriever, cases, delta)
    having = with_any(cases, set(delta.ids if delta else ()), retriever.history_length)
    unread = [
        Asked([item for item in case.history if item in old], case.relevant) for case in having
    ]
    return {
        "heard": heard,
        "offered": len(delta or ()),
        "users": len(cases),
        "users_of_new": sum(bool(case.relevant & new) for case in cases),
        "new": recall(cases, beside, new),
        "new_by_popularity": recall(cases, [popular] * len(cases), new),
        "new_by_popularity_of_new": recall(cases, [popular_new] * len(cases), new),
        "known_without": recall(cases, without, old),
        "known": recall(cases, beside, old),
        "all_without": recall(cases, without, None),
        "all": recall(cases, beside, None),
        "users_with_new": len(having),
        "unread": recall(having, answers(retriever, unread, delta), None),
        "read": recall(having, answers(retriever, having, delta), None),
        "share_of_answers": float(np.mean([len(set(ids) - old) / len(ids) for ids in beside])),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("log", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--known", type=float, default=0.65)
    parser.add_argument("--heard", default="0.02,0.05,0.1")
    parser.add_argument("--next", type=float, default=0.05)
    parser.add_argument("--users", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=30)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    log = in_order(read_log(given.log))
    known = round(given.known * len(log.items))
    retriever = trained(log, known, given.out, given.epochs)
    rows = [
        measure(retriever, log, known, float(heard), given.next, given.users)
        for heard in given.heard.split(",")
    ]
    names = [*rows[0]]
    print(f"| {' | '.join(names)} |", f"|{'---:|' * len(names)}", sep="\n")
    for row in rows:
        cells = (
            f"{row[name]:,}" if isinstance(row[name], int) else f"{row[name]:.3f}" for name in names
        )
        print(f"| {' | '.join(cells)} |")
    better = all(row["new"] >= row["new_by_popularity"] for row in rows if row["users_of_new"])
    print(json.dumps({"passed": better, "rows": rows}))
    sys.exit(not better)


if __name__ == "__main__":
    main()

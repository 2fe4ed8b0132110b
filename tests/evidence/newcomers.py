"""What cold-start items are worth beside the release: recall on targets that the release lacks.

    python tests/evidence/newcomers.py LOG --out DIR [--known 0.65] [--observed 0.02,0.05,0.1]
                                       [--next 0.05] [--users 2] [--epochs 30]
                                       [--items ITEMS] [--set encoder=linear ...]

A release is trained once, on the oldest interactions of LOG, --known of them. Then the service
observes more events, --observed of the log, and places new items by their users, at least --users
each. Each user of the next --next of the log whose history has a known item is a case: recall@50 of
the next items, without repeats. Baselines: the 50 most popular items of all events so far, and of
the new items. Users with new items in their history are also evaluated without them. With ITEMS,
recall of new items where they have a fifth of the places, placed by their users alone, and by their
words too. The draft is kept in DIR. Prints a Markdown table, then one JSON object.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from log_order import Case, Log, in_order

from index.retrieval.delta import (
    Delta,
    cold_start_vector,
    median_norm,
    user_context,
    with_words,
)
from index.retrieval.query import Query
from index.retrieval.retriever import Retriever
from index.retrieval.rules import Rules
from training.config import read_config
from training.data.item_metadata import read_items
from training.data.readers import read_log
from training.evaluation.evaluate import open_retriever
from training.fitting.content_model import fit_content
from training.fitting.fit import fit

K = 50
_BATCH = 256

Words = Callable[[Sequence[str]], Delta] | None  # of items by their ids


class Observed(NamedTuple):
    """The new items with their vectors, and users of each; the histories of all users."""

    delta: Delta | None
    users: dict[str, int]
    histories: dict[str, list[str]]


def train(log: Log, known: int, folder: Path, settings: dict[str, Any]) -> Retriever:
    drafts = [*folder.glob("root/drafts/*")]
    if not drafts:
        columns = {"user_id": log.users[:known], "item_id": log.items[:known]}
        times = np.arange(known, dtype=np.float64)
        pq.write_table(pa.table({**columns, "timestamp": times}), folder / "known.parquet")
        least = {"min_user_interactions": 2, "min_item_interactions": 3}
        config = read_config(None, {**least, **settings}, "best")
        drafts = [fit(folder / "known.parquet", folder / "root", config)]
    return open_retriever(drafts[0])[1]


def observe(retriever: Retriever, log: Log, known: int, until: int, min_users: int) -> Observed:
    histories: dict[str, list[str]] = defaultdict(list)
    contexts: dict[str, dict[str, list[int]]] = defaultdict(dict)
    rows = retriever.catalog.rows(log.items[:until])
    for index, row in enumerate(rows):
        user, item = log.users[index], log.items[index]
        if not row and index >= known:
            known_rows = [r for r in retriever.catalog.rows(histories[user]) if r]
            if known_rows:
                contexts[item][user] = known_rows
        histories[user].append(item)
    content = retriever.encoder.content
    norm = median_norm(retriever.vectors, content)
    vectors = {
        item: cold_start_vector(
            [user_context(retriever.vectors, rows, content) for rows in by_user.values()],
            norm,
            content,
        )
        for item, by_user in contexts.items()
        if len(by_user) >= min_users
    }
    users = {item: len(by_user) for item, by_user in contexts.items()}
    return Observed(Delta.of(vectors) if vectors else None, users, histories)


def next_cases(
    retriever: Retriever, log: Log, histories: Mapping[str, list[str]], first: int, end: int
) -> list[Case]:
    relevant: dict[str, set[str]] = defaultdict(set)
    for user, item in zip(log.users[first:end], log.items[first:end], strict=True):
        relevant[user].add(item)
    return [
        Case(histories[user], items)
        for user, items in relevant.items()
        if user in histories and any(retriever.catalog.rows(histories[user]))
    ]


def recommend(
    retriever: Retriever, cases: Sequence[Case], delta: Delta | None, places: int = 0
) -> list[list[str]]:
    """places: at the least for new items."""
    ids = [*retriever.catalog.ids, *(delta.ids if delta else ())]
    rules = Rules(min_new_items=places)
    queries = [Query(case.history, K, exclude_seen=False, rules=rules) for case in cases]
    return [
        [ids[row - 1] for row in result.rows.tolist()]
        for first in range(0, len(queries), _BATCH)
        for result in retriever.recommend(queries[first : first + _BATCH], delta=delta)
    ]


def recall(
    cases: Sequence[Case], results: Sequence[Sequence[str]], targets: set[str] | None
) -> float:
    """Mean over the cases with a relevant item among `targets`; None is all items."""
    shares = []
    for case, items in zip(cases, results, strict=True):
        relevant = case.relevant if targets is None else case.relevant & targets
        if relevant:
            shares.append(len(relevant & set(items)) / len(relevant))
    return float(np.mean(shares)) if shares else float("nan")


def with_any(cases: Sequence[Case], items: set[str], newest: int) -> list[Case]:
    """The cases with any of the items among the newest of their history."""
    return [case for case in cases if items.intersection(case.history[-newest:])]


def measure(
    retriever: Retriever,
    log: Log,
    known: int,
    observed: float,
    options: argparse.Namespace,
    words: Words,
) -> dict[str, float]:
    """words: the vectors of items by them."""
    size = len(log.items)
    until = known + round(observed * size)
    end = min(until + round(options.next * size), size)
    delta, users, histories = observe(retriever, log, known, until, options.users)
    cases = next_cases(retriever, log, histories, until, end)
    old = set(retriever.catalog.ids)
    new = {item for case in cases for item in case.relevant} - old
    counts = Counter(log.items[:until])
    popular = [item for item, _ in counts.most_common(K)]
    new_counts = Counter(item for item in log.items[known:until] if item not in old)
    popular_new = [item for item, _ in new_counts.most_common(K)]
    without, beside = recommend(retriever, cases, None), recommend(retriever, cases, delta)
    new_readers = with_any(cases, set(delta.ids if delta else ()), retriever.history_length)
    known_only = [
        Case([item for item in case.history if item in old], case.relevant) for case in new_readers
    ]
    return {
        "observed": observed,
        "cold_start_items": len(delta or ()),
        "users": len(cases),
        "users_of_new": sum(bool(case.relevant & new) for case in cases),
        "new": recall(cases, beside, new),
        "new_by_popularity": recall(cases, [popular] * len(cases), new),
        "new_by_popularity_of_new": recall(cases, [popular_new] * len(cases), new),
        "known_without": recall(cases, without, old),
        "known": recall(cases, beside, old),
        "all_without": recall(cases, without, None),
        "all": recall(cases, beside, None),
        "users_with_new": len(new_readers),
        "unread": recall(new_readers, recommend(retriever, known_only, delta), None),
        "read": recall(new_readers, recommend(retriever, new_readers, delta), None),
        "share_of_results": float(np.mean([len(set(ids) - old) / len(ids) for ids in beside])),
        **with_places(retriever, cases, delta, users, words, new),
    }


def with_places(
    retriever: Retriever,
    cases: Sequence[Case],
    delta: Delta | None,
    users: Mapping[str, int],
    words: Words,
    new: set[str],
) -> dict[str, float]:
    """Recall of new items that have a fifth of the places, by users alone and with words."""
    if words is None:
        return {}
    if delta is None:
        return dict.fromkeys(("places", "places_with_words"), float("nan"))
    mixed = with_words(delta, users, words(delta.ids), retriever.encoder.content)
    return {
        "places": recall(cases, recommend(retriever, cases, delta, K // 5), new),
        "places_with_words": recall(cases, recommend(retriever, cases, mixed, K // 5), new),
    }


def words_of(retriever: Retriever, items: Path | None) -> Words:
    if items is None:
        return None
    details = read_items(items)
    vectors = np.asarray(retriever.vectors)
    fitted = fit_content(retriever.catalog, details, retriever.encoder, vectors)
    if fitted is None:
        sys.exit(f"{items}: too few items of the log have a title or a category")
    return lambda ids: fitted.text.delta({i: details[i].known for i in ids if i in details})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("log", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--known", type=float, default=0.65)
    parser.add_argument("--observed", default="0.02,0.05,0.1")
    parser.add_argument("--next", type=float, default=0.05)
    parser.add_argument("--users", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--items", type=Path)
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    log = in_order(read_log(options.log))
    known = round(options.known * len(log.items))
    settings = dict(each.split("=", 1) for each in options.set)
    retriever = train(log, known, options.out, {"epochs": options.epochs, **settings})
    words = words_of(retriever, options.items)
    rows = [
        measure(retriever, log, known, float(observed), options, words)
        for observed in options.observed.split(",")
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

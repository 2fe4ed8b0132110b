"""What the words of an item say of it before anybody took it: recall of items hidden from training.

    python tests/evidence/cold_items.py LOG ITEMS --out DIR [--hidden 0.05] [--users 0.2]
                                        [--preset best] [--set encoder=linear ...]

A share of the items is hidden: none of their interactions is trained on, and neither is anything of
a share of the users. These are the cases: each history up to the first hidden item that its user
took, and the hidden items taken from there on. The hidden items are candidates by the vectors of
their words alone: among themselves, beside the release, and there with a tenth, a fifth and two
fifths of the places for new items, at the cost of known items that the user took from there on and
not before. Baselines that know neither:
hidden items by the popularity of their category, by the part of the user's history in it, and at
random; items of one category are in a random order. The draft is kept in DIR. Prints a Markdown
table, then one JSON object.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from log_order import Log, in_order

from index.retrieval.delta import Delta
from index.retrieval.query import Query
from index.retrieval.retriever import Retriever
from index.retrieval.rules import Rules
from training.config import read_config
from training.data.item_metadata import ItemDetails, read_items
from training.data.readers import read_log
from training.evaluation.evaluate import open_retriever
from training.fitting.content_model import fit_content
from training.fitting.fit import fit

CUTOFFS = (20, 50)
SHARES = (0.1, 0.2, 0.4)  # of the places, for new items
_BATCH = 256
_SEED = 0


class Case(NamedTuple):
    """A user: the items so far, oldest first, and the hidden and the known ones to be found."""

    history: list[str]
    hidden: set[str]
    known: set[str]


def drawn(ids: Sequence[str], share: float) -> set[str]:
    """A share of the different ids."""
    different = sorted(set(ids))
    draws = np.random.default_rng(_SEED).random(len(different))
    return {each for each, draw in zip(different, draws, strict=True) if draw < share}


def cases_of(log: Log, hidden: set[str], users: set[str]) -> list[Case]:
    cases: dict[str, Case] = defaultdict(lambda: Case([], set(), set()))
    for user, item in zip(log.users, log.items, strict=True):
        if user in users:
            case = cases[user]
            if item in hidden:
                case.hidden.add(item)
            elif not case.hidden:
                case.history.append(item)
            else:
                case.known.add(item)
    for case in cases.values():
        case.known.difference_update(case.history)
    return [case for case in cases.values() if case.history and case.hidden]


def train(log: Log, items: Path, options: argparse.Namespace) -> Path:
    drafts = [*options.out.glob("root/drafts/*")]
    if not drafts:
        columns = {"user_id": log.users, "item_id": log.items}
        times = np.arange(len(log.items), dtype=np.float64)
        path = options.out / "known.parquet"
        pq.write_table(pa.table({**columns, "timestamp": times}), path)
        settings = dict(each.split("=", 1) for each in options.set)
        config = read_config(None, settings, options.preset)
        drafts = [fit(path, options.out / "root", config, items)]
    return drafts[0]


def beside(
    retriever: Retriever, cases: Sequence[Case], delta: Delta | None, k: int, places: int = 0
) -> list[list[str]]:
    """places: at the least for new items."""
    ids = [*retriever.catalog.ids, *(delta.ids if delta else ())]
    rules = Rules(min_new_items=places)
    queries = [Query(case.history, k, exclude_seen=True, rules=rules) for case in cases]
    return [
        [ids[row - 1] for row in answer.rows.tolist()]
        for first in range(0, len(queries), _BATCH)
        for answer in retriever.recommend(queries[first : first + _BATCH], delta=delta)
    ]


def measured(
    retriever: Retriever, cases: Sequence[Case], delta: Delta | None, share: float = 0.0
) -> dict[str, float]:
    """Recall of hidden and of known items beside each other. share: of places for new items."""
    found = {n: beside(retriever, cases, delta, n, round(share * n)) for n in CUTOFFS}
    top = max(CUTOFFS)
    return {
        **{f"recall@{n}": recall([c.hidden for c in cases], found[n], n) for n in CUTOFFS},
        f"known recall@{top}": recall([c.known for c in cases], found[top], top),
    }


def among(retriever: Retriever, cases: Sequence[Case], delta: Delta) -> list[list[str]]:
    """The new items alone, by the best of the interests."""
    ranked = []
    for first in range(0, len(cases), _BATCH):
        batch = cases[first : first + _BATCH]
        histories = [[*filter(None, retriever.catalog.rows(case.history))] for case in batch]
        for interests in retriever.encode(histories):
            rows, _, _ = delta.search(interests, None, max(CUTOFFS), 0)
            ranked.append([delta.ids[row - 1] for row in rows.tolist()])
    return ranked


def by_category(
    cases: Sequence[Case], hidden: Sequence[str], details: dict[str, ItemDetails], log: Log
) -> dict[str, list[list[str]]]:
    """The rankings of the baselines."""
    shuffled = [*np.random.default_rng(_SEED).permutation(sorted(hidden)).tolist()]
    category = {item: known.category for item, known in details.items()}
    counts = Counter(category.get(item) for item in log.items)
    sizes = Counter(category.get(item) for item in set(log.items))
    top = max(CUTOFFS)
    popular = sorted(shuffled, key=lambda i: -counts[category[i]] / max(sizes[category[i]], 1))
    personal = []
    for case in cases:
        own = Counter(category.get(item) for item in case.history)
        personal.append(sorted(shuffled, key=lambda item: -own[category[item]])[:top])
    return {
        "popularity of the category": [popular[:top]] * len(cases),
        "the user's categories": personal,
        "at random": [shuffled[:top]] * len(cases),
    }


def recall(relevant: Sequence[set[str]], ranked: Sequence[Sequence[str]], cutoff: int) -> float:
    """Over the users that have relevant items."""
    shares = [
        len(wanted.intersection(items[:cutoff])) / min(cutoff, len(wanted))
        for wanted, items in zip(relevant, ranked, strict=True)
        if wanted
    ]
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("log", type=Path)
    parser.add_argument("items", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hidden", type=float, default=0.05)
    parser.add_argument("--users", type=float, default=0.2)
    parser.add_argument("--preset", default="best")
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    log, details = in_order(read_log(options.log)), read_items(options.items)
    users = drawn(log.users, options.users)
    hidden = drawn([item for item in log.items if item in details], options.hidden)
    cases = cases_of(log, hidden, users)
    seen = [
        at
        for at, (user, item) in enumerate(zip(log.users, log.items, strict=True))
        if user not in users and item not in hidden
    ]
    known = Log([log.users[at] for at in seen], [log.items[at] for at in seen])
    manifest, retriever = open_retriever(train(known, options.items, options))
    cases = [case for case in cases if any(retriever.catalog.rows(case.history))]
    vectors = np.asarray(retriever.vectors)
    fitted = fit_content(retriever.catalog, details, retriever.encoder, vectors)
    if fitted is None:
        sys.exit(f"{options.items}: too few items of the log have a title or a category")
    delta = fitted.text.delta({item: details[item].known for item in sorted(hidden)})
    rankings = {
        "words, among the hidden": among(retriever, cases, delta),
        **by_category(cases, sorted(hidden), details, known),
    }
    wanted = [case.hidden for case in cases]
    figures = {
        name: {f"recall@{n}": recall(wanted, ranked, n) for n in CUTOFFS}
        for name, ranked in rankings.items()
    }
    figures["without new items"] = measured(retriever, cases, None)
    figures["words, beside all items"] = measured(retriever, cases, delta)
    for share in SHARES:
        name = f"words, {share:.0%} of the places for new items"
        figures[name] = measured(retriever, cases, delta, share)
    columns = [*figures["without new items"]]
    print(f"| hidden items by | {' | '.join(columns)} |")
    print(f"|---|{'---:|' * len(columns)}")
    for name, values in figures.items():
        cells = (f"{values[column]:.4f}" if column in values else "" for column in columns)
        print(f"| {name} | {' | '.join(cells)} |")
    facts = {
        "log": options.log.name,
        "encoder": manifest.encoder.name,
        "items": len(retriever.catalog),
        "hidden": len(hidden),
        "hidden_with_vector": len(delta),
        "users": len(cases),
        "targets_per_user": float(np.mean([len(case.hidden) for case in cases])),
        "known_targets_per_user": float(np.mean([len(case.known) for case in cases])),
    }
    print(json.dumps({**facts, "held_out": fitted.metrics, "recall": figures}))


if __name__ == "__main__":
    main()

"""The same users answered by two models, with titles: what several interests look like.

    python tests/evidence/side_by_side.py ONE SEVERAL LOG [--items ITEMS] [--users 5] [--k 12]

ONE and SEVERAL are drafts or releases of the same log, with the same filters and split. The users
are the first of the test part. Seen items are left out. Prints Markdown: of each user, what the
history mostly has, both answers, and what each interest alone would answer. * marks an item that
the user then took, and a number the interest that found it.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from index.retrieval.catalog import Catalog
from index.retrieval.query import Answer, Query
from index.retrieval.retriever import Retriever
from training.config import FitConfig
from training.evaluation.evaluate import open_retriever
from training.evaluation.protocols import EvaluationCase
from training.fitting.fit import prepare_log

_SHOWN_CATEGORIES = 4
_SHOWN_TITLES = 5  # of each interest


def title(catalog: Catalog, row: int) -> str:
    return catalog.titles[row - 1] or catalog.id(row)


def describe(case: EvaluationCase, catalog: Catalog) -> str:
    """The size of a history and its most frequent categories."""
    categories = Counter(catalog.categories[row - 1] or "none" for row in case.history)
    shown = ", ".join(f"{name} {n}" for name, n in categories.most_common(_SHOWN_CATEGORIES))
    return f"{len(case.history)} items of {len(categories)} categories, mostly {shown}"


def cells(answer: Answer, case: EvaluationCase, catalog: Catalog, numbered: bool) -> list[str]:
    """One for each candidate, best first; numbered: with the interest that found it."""
    texts = []
    for row, interest in zip(answer.rows.tolist(), answer.interests.tolist(), strict=True):
        found_by = f"{interest}: " if numbered else ""
        texts.append(f"{found_by}{title(catalog, row)}{' *' if row in case.relevant else ''}")
    return texts


def best_of_each(case: EvaluationCase, retriever: Retriever, k: int) -> list[list[int]]:
    """The rows of the k best unseen items of each interest alone."""
    scores = retriever.encode([case.history])[0] @ retriever.vectors.T
    scores[:, [0, *case.history]] = -np.inf
    best: list[list[int]] = np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()
    return best


def print_user(
    number: int, case: EvaluationCase, catalog: Catalog, one: Retriever, several: Retriever, k: int
) -> None:
    query = Query([catalog.id(row) for row in case.history], k, exclude_seen=True)
    left = cells(one.recommend([query])[0], case, catalog, False)
    right = cells(several.recommend([query])[0], case, catalog, True)
    print(f"\nUser {number}: {describe(case, catalog)}.\n")
    print(f"| | K = {one.encoder.interests} | K = {several.encoder.interests} |")
    print("|---:|---|---|")
    for rank, pair in enumerate(zip(left, right, strict=True), start=1):
        print(f"| {rank} | {pair[0]} | {pair[1]} |")
    print("\nEach interest alone:\n")
    for interest, rows in enumerate(best_of_each(case, several, _SHOWN_TITLES)):
        print(f"- {interest}: {'; '.join(title(catalog, row) for row in rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one", type=Path)
    parser.add_argument("several", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("--items", type=Path)
    parser.add_argument("--users", type=int, default=5)
    parser.add_argument("--k", type=int, default=12)
    given = parser.parse_args()
    manifest, one = open_retriever(given.one)
    several = open_retriever(given.several)[1]
    # Releases are opened without titles: those of the log's catalogue, which has the same rows.
    data = prepare_log(given.log, given.items, FitConfig.from_stored(manifest.training))
    for number, case in enumerate(data.split.test[: given.users], start=1):
        print_user(number, case, data.catalog, one, several, given.k)


if __name__ == "__main__":
    main()

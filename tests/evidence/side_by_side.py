"""The same users answered by two models, with titles: what several interests look like.

    python tests/evidence/side_by_side.py ONE SEVERAL LOG [--items ITEMS] [--users 5] [--k 12]

ONE and SEVERAL are drafts or releases of the same log, with the same filters and split. The users
are the first of the test part. Seen items are left out. Prints Markdown: of each user, what the
history mostly has, both answers, and what each interest alone would answer. * marks an item that
the user then took, and a number the interest that found it.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from index.retrieval.retriever import Answer, Query, Retriever
from training.config import FitConfig
from training.evaluation.evaluate import open_retriever
from training.evaluation.protocols import EvaluationCase
from training.fitting.fit import prepare_log

_SHOWN_CATEGORIES = 4
_SHOWN_TITLES = 5  # of each interest


def describe(case: EvaluationCase, retriever: Retriever) -> str:
    """The size of a history and its most frequent categories."""
    catalog = retriever.catalog
    categories = Counter(catalog.categories[row - 1] or "none" for row in case.history)
    shown = ", ".join(f"{name} {n}" for name, n in categories.most_common(_SHOWN_CATEGORIES))
    return f"{len(case.history)} items of {len(categories)} categories, mostly {shown}"


def cells(answer: Answer, case: EvaluationCase, retriever: Retriever) -> list[str]:
    """One for each candidate, best first."""
    titles, several = retriever.catalog.titles, retriever.encoder.interests > 1
    texts = []
    for row, interest in zip(answer.rows.tolist(), answer.interests.tolist(), strict=True):
        title = titles[row - 1] or retriever.catalog.id(row)
        found_by = f"{interest}: " if several else ""
        texts.append(f"{found_by}{title}{' *' if row in case.relevant else ''}")
    return texts


def best_of_each(case: EvaluationCase, retriever: Retriever, k: int) -> list[str]:
    """The k best unseen items of each interest alone."""
    scores = retriever.encode([case.history])[0] @ retriever.vectors.T
    scores[:, [0, *case.history]] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()
    catalog = retriever.catalog
    return ["; ".join(catalog.titles[row - 1] or catalog.id(row) for row in rows) for rows in best]


def print_user(number: int, case: EvaluationCase, retrievers: Sequence[Retriever], k: int) -> None:
    ids = [retrievers[0].catalog.id(row) for row in case.history]
    answers = [r.recommend([Query(ids, k, exclude_seen=True)])[0] for r in retrievers]
    one, several = (
        cells(answer, case, retriever)
        for answer, retriever in zip(answers, retrievers, strict=True)
    )
    print(f"\nUser {number}: {describe(case, retrievers[0])}.\n")
    print(f"| | K = {retrievers[0].encoder.interests} | K = {retrievers[1].encoder.interests} |")
    print("|---:|---|---|")
    for rank, pair in enumerate(zip(one, several, strict=True), start=1):
        print(f"| {rank} | {pair[0]} | {pair[1]} |")
    print("\nEach interest alone:\n")
    for interest, titles in enumerate(best_of_each(case, retrievers[1], _SHOWN_TITLES)):
        print(f"- {interest}: {titles}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one", type=Path)
    parser.add_argument("several", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("--items", type=Path)
    parser.add_argument("--users", type=int, default=5)
    parser.add_argument("--k", type=int, default=12)
    given = parser.parse_args()
    opened = [open_retriever(folder) for folder in (given.one, given.several)]
    config = FitConfig.from_stored(opened[0][0].training)
    cases = prepare_log(given.log, given.items, config).split.test[: given.users]
    for number, case in enumerate(cases, start=1):
        print_user(number, case, [retriever for _, retriever in opened], given.k)


if __name__ == "__main__":
    main()

"""Re4 finds the interests that were planted, and finds nothing where none were."""

from collections import Counter
from pathlib import Path

import pytest

from index.retrieval.retriever import Retriever
from training.config import FitConfig
from training.data.synthetic import write_synthetic
from training.evaluation.evaluate import evaluate, exact
from training.evaluation.metrics import recall
from training.evaluation.protocols import Case
from training.fitting.fit import prepare_log
from training.fitting.trainer import Trainer

CONFIG = FitConfig(
    recency=True,
    objective="softmax",
    recontrast=0.1,
    reattend=0.1,
    reconstruct=0.1,
    dropout=0.0,
    dim=32,
    interests=4,
    hidden=64,
    negatives=300,
    epochs=16,
)


def trained(folder: Path, control: bool) -> tuple[Retriever, list[Case]]:
    """A retriever, and test users it never saw."""
    write_synthetic(folder, users=900, items=300, seed=4, control=control)
    ready = prepare_log(folder / "interactions.parquet", folder / "items.parquet", CONFIG)
    fitted = Trainer(CONFIG, ready.catalog, ready.task, folder).run()
    retriever = exact(ready.catalog, fitted.encoder, fitted.vectors, CONFIG.history)
    return retriever, ready.task.test


def popularity_recall(cases: list[Case], n: int) -> float:
    return sum(recall(range(1, n + 1), case.relevant, n) for case in cases) / len(cases)


def covered(retriever: Retriever, case: Case) -> float:
    """Share of the categories in a history that fill most of some interest's ten best items."""
    category = retriever.catalog.categories
    found = set()
    for interest in retriever.encode([case.history])[0]:
        best = retriever.index.search(interest[None, None, :], 10).rows[0]
        (name, count), *_ = Counter(category[row - 1] for row in best).most_common(1)
        if count >= 6:
            found.add(name)
    planted = {category[row - 1] for row in case.history}
    return len(found & planted) / len(planted)


@pytest.fixture(scope="module")
def planted_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Retriever, list[Case]]:
    return trained(tmp_path_factory.mktemp("planted"), control=False)


def test_unseen_users_are_given_what_they_took_next(planted_model):
    retriever, users = planted_model
    metrics = evaluate(retriever, users)
    assert metrics["recall@20"] > 3 * popularity_recall(users, 20)
    assert metrics["recall@20"] > 0.35


def test_interests_are_the_planted_categories(planted_model):
    retriever, users = planted_model
    assert sum(covered(retriever, case) for case in users) / len(users) > 0.75


def test_nothing_is_found_in_the_control(tmp_path):
    retriever, users = trained(tmp_path, control=True)
    metrics = evaluate(retriever, users)
    assert metrics["recall@20"] < 1.2 * popularity_recall(users, 20)

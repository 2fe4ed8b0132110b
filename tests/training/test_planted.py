"""Re4 learns the planted interests, and nothing from the control."""

from collections import Counter
from pathlib import Path

import pytest

from index.retrieval.merge import merge
from index.retrieval.retriever import Retriever
from training.config import FitConfig, read_config
from training.data.synthetic import write_synthetic
from training.evaluation.evaluate import evaluate, exact_retriever
from training.evaluation.metrics import recall
from training.evaluation.protocols import EvaluationCase
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


def trained(folder: Path, control: bool) -> tuple[Retriever, list[EvaluationCase]]:
    """A retriever, and the test users, which it was not trained on."""
    write_synthetic(folder, users=900, items=300, seed=4, control=control)
    prepared = prepare_log(folder / "interactions.parquet", folder / "items.parquet", CONFIG)
    fitted = Trainer(CONFIG, prepared.catalog, prepared.split, folder).run()
    retriever = exact_retriever(prepared.catalog, fitted.encoder, fitted.vectors, CONFIG.history)
    return retriever, prepared.split.test


def popularity_recall(cases: list[EvaluationCase], n: int) -> float:
    return sum(recall(range(1, n + 1), case.relevant, n) for case in cases) / len(cases)


def coverage(retriever: Retriever, case: EvaluationCase) -> float:
    """Share of the categories in a history that are most of the ten best items of an interest."""
    category = retriever.catalog.categories
    retrieved = set()
    for interest in retriever.encode([case.history])[0]:
        best = merge(retriever.index.search(interest[None, None, :], 10)).rows[0, :10]
        (name, count), *_ = Counter(category[row - 1] for row in best).most_common(1)
        if count >= 6:
            retrieved.add(name)
    planted = {category[row - 1] for row in case.history}
    return len(retrieved & planted) / len(planted)


@pytest.fixture(scope="module")
def planted_model(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Retriever, list[EvaluationCase]]:
    return trained(tmp_path_factory.mktemp("planted"), control=False)


def test_recall_for_unseen_users_beats_popularity(planted_model):
    retriever, cases = planted_model
    metrics = evaluate(retriever, cases)
    assert metrics["recall@20"] > 3 * popularity_recall(cases, 20)
    assert metrics["recall@20"] > 0.35


def test_interests_are_the_planted_categories(planted_model):
    retriever, cases = planted_model
    assert sum(coverage(retriever, case) for case in cases) / len(cases) > 0.75


def test_nothing_is_learnt_from_the_control(tmp_path):
    retriever, cases = trained(tmp_path, control=True)
    metrics = evaluate(retriever, cases)
    assert metrics["recall@20"] < 1.2 * popularity_recall(cases, 20)


def test_parts_are_read_from_the_history_as_the_planted_categories_are(tmp_path):
    """Four learnt tokens, each of one part of the items: all lists differ, and they pay."""
    method = {"encoder": "transformer", "readout": "tokens", "objective": "partitioned-max"}
    small = {"interests": 4, "dim": 32, "expansion": 2, "negatives": 300, "batch_size": None}
    rate = {"learning_rate": 0.002, "learning_rate_schedule": "constant"}
    training = {"dropout": 0.3, "epochs": 16, **rate}
    config = read_config(None, {**method, **small, **training})
    write_synthetic(tmp_path, users=900, items=300, seed=4)
    prepared = prepare_log(tmp_path / "interactions.parquet", tmp_path / "items.parquet", config)
    fitted = Trainer(config, prepared.catalog, prepared.split, tmp_path).run()
    retriever = exact_retriever(prepared.catalog, fitted.encoder, fitted.vectors, config.history)
    cases = prepared.split.test
    metrics = evaluate(retriever, cases)
    assert metrics["distinct_share"] == 1
    assert metrics["recall@20"] > 3 * popularity_recall(cases, 20)
    assert sum(coverage(retriever, case) for case in cases) / len(cases) > 0.5

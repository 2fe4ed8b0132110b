"""Evaluation in blocks of users, as on a GPU: the metrics of the search that serves."""

import pytest
import torch

from index.retrieval.catalog import Catalog
from training.config import read_config
from training.evaluation import batched
from training.evaluation.batched import BatchedScorer
from training.evaluation.evaluate import evaluate, exact_retriever
from training.evaluation.protocols import EvaluationCase
from training.models.model import Model

ITEMS = 120


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {"encoder": "re4", "interests": 4, "score_temperature": 0.15},
        {
            "encoder": "re4",
            "interests": 3,
            "objective": "partitioned-max",
            "score_temperature": 0.1,
        },
        {"encoder": "gru4rec"},
    ],
    ids=["interests", "parts", "one interest"],
)
def test_the_metrics_are_those_of_evaluate(
    settings: dict[str, object], exclude_seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched, "_MOST_USERS", 7)  # several blocks
    torch.manual_seed(0)
    config = read_config(None, {"dim": 16, "history": 6, "objective": "served-max", **settings})
    model = Model(config, torch.ones(ITEMS + 1)).eval()
    ids = [f"i{n}" for n in range(ITEMS)]
    names = [f"c{n % 5}" if n % 7 else None for n in range(ITEMS)]
    catalog = Catalog(ids, torch.arange(ITEMS, 0, -1).numpy(), [None] * ITEMS, names)
    draw = torch.Generator().manual_seed(1)
    cases = [
        EvaluationCase(
            torch.randint(1, ITEMS + 1, (length,), generator=draw).tolist(),
            torch.randperm(ITEMS, generator=draw)[:8].add(1).tolist(),
        )
        for length in [*range(1, 12)] * 2
    ]
    expected = evaluate(
        exact_retriever(catalog, model.encoder, model.vectors(), config.history),
        cases,
        exclude_seen,
    )
    vectors = model.vectors_on_device()
    scorer = BatchedScorer(catalog, model.encoder, vectors, config.history)
    found = scorer.evaluate(cases, exclude_seen)
    assert [*found] == [*expected]
    assert found == pytest.approx(expected, abs=1e-6)
    assert found["recall@50"] > 0.1

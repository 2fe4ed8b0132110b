"""Two releases compared on one held-out day."""

import numpy as np
import pytest
import torch

from index.encoders import Encoder, History, Interests
from index.retrieval.catalog import Catalog
from index.retrieval.retriever import Retriever
from training.evaluation.champion_challenger import compare_releases
from training.evaluation.evaluate import exact_retriever
from training.evaluation.holdout_day import day_cases


class Newest(Encoder):
    """The one interest is the vector of the newest item."""

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.interests = 4, 1

    def forward(self, history: History) -> Interests:
        newest = history.vectors[:, -1:, :]
        return Interests(newest, torch.ones(len(newest), 1, history.rows.shape[1]), newest)


def retriever(ids: list[str], pairs: dict[str, str]) -> Retriever:
    """A retriever whose best item for an item of `pairs` is its partner."""
    catalog = Catalog(ids, np.arange(len(ids), 0, -1), [None] * len(ids), [None] * len(ids))
    vectors = np.zeros((len(ids) + 1, 4), dtype=np.float32)
    for column, (item, partner) in enumerate(pairs.items()):
        vectors[catalog.rows([item])[0], column] = 1
        vectors[catalog.rows([partner])[0], column] = 2
    return exact_retriever(catalog, Newest(), vectors, 5)


def test_releases_with_different_catalogues_are_compared_on_the_same_cases(log, since):
    new = retriever(["a", "b", "c", "d", "e"], {"b": "c", "a": "e"})
    live = retriever(["z", "b", "d"], {"b": "d"})  # lacks a, c and e; z is not in the log
    cases = day_cases(log, since)
    comparison = compare_releases(log, since, cases, new, live)
    known = sum(case.history == ["a", "b"] for case in cases)
    assert comparison.live is not None
    assert comparison.users == len(cases)
    # Of c and d, live has only d; for a it has popular items: b, but not e.
    assert comparison.live["recall@50"] == pytest.approx(0.5)
    assert comparison.live["hit@5"] == 1
    assert comparison.new["recall@50"] == 1
    second = 1 / np.log2(3)
    gains = known * 1 + (len(cases) - known) * second  # d is first; b is second, after z
    assert comparison.live["ndcg@5"] == pytest.approx(gains / len(cases) / (1 + second))
    assert comparison.errors is not None
    assert comparison.errors["recall@50"] == 0  # the difference is the same for all users

"""Interest metrics of interests on the axes."""

import numpy as np
import pytest
import torch

from index.ann.build import build_index
from index.ann.spec import IndexSpec
from index.encoders import Encoder, History, Interests
from index.retrieval.catalog import Catalog
from index.retrieval.retriever import Retriever
from training.evaluation.interest_metrics import interest_metrics
from training.evaluation.protocols import EvaluationCase

AXES = np.eye(4, dtype=np.float32)


class Fixed(Encoder):
    """Gives every history the same interests (K, 4)."""

    dim = 4

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__()
        self.interests, self._vectors = len(vectors), torch.from_numpy(vectors)

    def forward(self, history: History) -> Interests:
        vectors = self._vectors.expand(len(history.rows), -1, -1)
        shares = torch.full((len(history.rows), len(self._vectors), history.rows.shape[1]), 0.5)
        return Interests(vectors, shares, vectors)


def measured(interests: np.ndarray, categories: list[str | None]) -> dict[str, float]:
    """Of four items, one on each axis, the first with the largest norm."""
    vectors = np.zeros((5, 4), dtype=np.float32)
    vectors[1:] = AXES * np.array([[4], [3], [2], [1]], dtype=np.float32)
    catalog = Catalog(list("abcd"), np.array([4, 3, 2, 1]), categories, [None] * 4)
    index = build_index(vectors, IndexSpec())
    retriever = Retriever(catalog, Fixed(interests), vectors, index, 2)
    return interest_metrics(retriever, [EvaluationCase([1, 2], [])], n=2)


def test_interests_that_are_orthogonal():
    metrics = measured(AXES[:2], ["x", "y", "y", "y"])
    assert metrics["interest_cosine"] == pytest.approx(0)
    assert metrics["interest_entropy"] == pytest.approx(
        1
    )  # a is retrieved by the first, b by the second
    assert metrics["distinct_share"] >= 0.5
    assert metrics["category_diversity"] == 1


def test_interests_that_collapsed():
    metrics = measured(AXES[[0, 0]], ["x", "x", "x", "x"])
    assert metrics["interest_cosine"] == pytest.approx(1)
    assert metrics["interest_entropy"] == pytest.approx(0)
    assert metrics["distinct_share"] == 0.5
    assert metrics["category_diversity"] == 0


def test_one_interest_and_no_categories():
    metrics = measured(AXES[:1], [None] * 4)
    assert metrics == {"interest_cosine": 1, "interest_entropy": 0, "distinct_share": 1}

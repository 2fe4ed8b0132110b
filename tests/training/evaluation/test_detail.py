"""What several interests are for, against slow references and by hand."""

import math

import numpy as np
import pytest
import torch

from index.encoders import Encoder, History, Interests
from index.retrieval.catalog import Catalog
from index.retrieval.retriever import Retriever
from training.evaluation.category_view import item_categories, view_of
from training.evaluation.detail import SEGMENTS, measure_in_detail
from training.evaluation.evaluate import evaluate, evaluate_in_detail, exact_retriever
from training.evaluation.metrics import (
    CaseView,
    best_interest_recall,
    category_coverage,
    distinct_share,
    minor_recall,
    single_interest_recall,
)
from training.evaluation.protocols import EvaluationCase

ITEMS, DIM, INTERESTS = 80, 6, 3


class Halves(Encoder):
    """Interests: the mean of the history, of its newest half, and of its oldest item."""

    dim, interests = DIM, INTERESTS

    def forward(self, history: History) -> Interests:
        length = history.rows.shape[1]
        newest = torch.zeros(length)
        newest[length // 2 :] = 1
        oldest = (history.mask.cumsum(1) == 1) & history.mask
        weights = torch.stack([history.mask.float(), history.mask * newest, oldest.float()], 1)
        vectors = weights @ history.vectors
        return Interests(vectors, weights, vectors)


def catalog_of(categories: list[tuple[str, ...]]) -> Catalog:
    return Catalog(
        [f"i{row:02d}" for row in range(1, len(categories) + 1)],
        np.arange(len(categories), 0, -1),
        [names[0] if names else None for names in categories],
        [None] * len(categories),
        [names[1:] for names in categories],
    )


@pytest.fixture(scope="module")
def retriever() -> Retriever:
    random = np.random.default_rng(3)
    names = [
        tuple(random.choice(list("abcdef"), random.integers(0, 3), replace=False))
        for _ in range(ITEMS)
    ]
    vectors = random.standard_normal((ITEMS + 1, DIM)).astype(np.float32)
    vectors[0] = 0
    return exact_retriever(catalog_of(names), Halves(), vectors, 10)


@pytest.fixture(scope="module")
def cases() -> list[EvaluationCase]:
    random = np.random.default_rng(4)
    drawn = [random.choice(ITEMS, 12, replace=False) + 1 for _ in range(40)]
    return [EvaluationCase(rows[:7].tolist(), rows[7:].tolist()) for rows in drawn]


def reference(
    retriever: Retriever, cases: list[EvaluationCase], exclude_seen: bool
) -> dict[str, float]:
    """Loops over all items, interests and users."""
    names = [
        {first, *more} - {None}
        for first, more in zip(
            retriever.catalog.categories, retriever.catalog.other_categories, strict=True
        )
    ]
    shares, merged, best, minors, coverages = [], [], [], [], []
    single: list[list[float]] = [[] for _ in range(INTERESTS)]
    for case in cases:
        interests = retriever.encode([case.history])[0]
        allowed = [r for r in range(1, ITEMS + 1) if not (exclude_seen and r in case.history)]
        score = retriever.vectors @ interests.T
        lists = [sorted(allowed, key=lambda r, k=k: -score[r, k])[:50] for k in range(INTERESTS)]
        ranked = sorted(allowed, key=lambda r: -score[r].max())[:50]
        shares.append(len(set().union(*lists)) / sum(map(len, lists)))
        found = [len(set(rows) & set(case.relevant)) / len(case.relevant) for rows in lists]
        for k, value in enumerate(found):
            single[k].append(value)
        best.append(max(found))
        merged.append(len(set(ranked) & set(case.relevant)) / len(case.relevant))
        counts: dict[str, int] = {}
        for row in case.history:
            for name in names[row - 1]:
                counts[name] = counts.get(name, 0) + 1
        main = {name for name in counts if counts[name] == max(counts.values())}
        minor = [r for r in case.relevant if names[r - 1] and not names[r - 1] & main]
        if minor:
            minors.append(len(set(minor) & set(ranked)) / len(minor))
        covered = set().union(*(names[r - 1] for r in ranked)) & set(counts)
        coverages.append(len(covered) / len(counts))
    return {
        "distinct_share": float(np.mean(shares)),
        "merged_recall@50": float(np.mean(merged)),
        "single_interest_recall@50": max(float(np.mean(values)) for values in single),
        "best_interest_recall@50": float(np.mean(best)),
        "minor_recall@50": float(np.mean(minors)),
        "category_coverage@50": float(np.mean(coverages)),
    }


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_every_metric_is_that_of_a_slow_reference(retriever, cases, exclude_seen):
    means = evaluate_in_detail(retriever, cases, exclude_seen).means
    other = f"seen_{'kept' if exclude_seen else 'removed'}/"
    for prefix, mode in (("", exclude_seen), (other, not exclude_seen)):
        for name, value in reference(retriever, cases, mode).items():
            assert means[prefix + name] == pytest.approx(value, abs=1e-6), prefix + name
    plain = evaluate(retriever, cases, exclude_seen)
    assert means.items() >= plain.items()
    swapped = evaluate(retriever, cases, not exclude_seen)
    assert means[other + "ndcg@20"] == pytest.approx(swapped["ndcg@20"])


def test_users_are_apart_by_their_number_of_categories(retriever, cases):
    means = evaluate_in_detail(retriever, cases).means
    categories = item_categories(retriever.catalog)
    counts = [len(view_of(case, categories).shown) for case in cases]
    users = {s: means[f"users/{s}"] for s in SEGMENTS if f"users/{s}" in means}
    assert users["4-7 categories"] == sum(4 <= count < 8 for count in counts)
    assert sum(users.values()) == len(cases)
    total = sum(means[f"recall@50/{s}"] * count for s, count in users.items())
    assert total / len(cases) == pytest.approx(means["recall@50"])


def test_without_categories_their_metrics_are_missing(retriever, cases):
    without = exact_retriever(catalog_of([()] * ITEMS), retriever.encoder, retriever.vectors, 10)
    means = evaluate_in_detail(without, cases).means
    assert "distinct_share" in means
    assert not [name for name in means if "minor" in name or "categor" in name]


def test_an_item_of_several_categories_counts_for_each():
    catalog = catalog_of([("x", "y"), ("y",), ("z",), (), ("z", "y")])
    view = view_of(EvaluationCase([1, 2, 4], [3, 4, 5]), item_categories(catalog))
    assert set(view.shown) == {"x", "y"}
    assert list(view.minor) == [3]  # 4 has no category; y, the main one, is among those of 5
    tied = view_of(EvaluationCase([2, 3], [1, 3]), item_categories(catalog))
    assert list(tied.minor) == []  # y and z are both the main ones
    none = view_of(EvaluationCase([4], [1]), item_categories(catalog))
    assert (list(none.minor), len(none.shown)) == ([], 0)


def test_the_metrics_by_hand():
    view = CaseView(
        relevant=[1, 2, 3],
        shown={"x", "y"},
        minor=[3],
        categories={1: ("x",), 5: ("z", "y"), 6: ("x",)},
        lists=[[1, 2, 7], [1, 8, 3]],
    )
    assert distinct_share([], view, 3) == pytest.approx(5 / 6)
    assert distinct_share([], view, 1) == 0.5
    assert single_interest_recall([], view, 3) == [pytest.approx(2 / 3)] * 2
    assert single_interest_recall([], view, 2) == [pytest.approx(2 / 3), pytest.approx(1 / 3)]
    assert best_interest_recall([], view, 2) == pytest.approx(2 / 3)
    assert minor_recall([5, 3], view, 2) == 1
    assert minor_recall([5, 3], view, 1) == 0
    assert category_coverage([1, 6], view, 2) == 0.5
    assert category_coverage([1, 5], view, 2) == 1
    assert math.isnan(minor_recall([1], CaseView([1]), 1))
    assert math.isnan(category_coverage([1], CaseView([1]), 1))


def test_a_baseline_has_no_interests(retriever, cases):
    means = measure_in_detail(
        lambda cases, exclude_seen: ([1, 2, 3] for _ in cases), cases, True, retriever.catalog
    ).means
    assert "minor_recall@50" in means
    assert "distinct_share" not in means
    assert "seen_kept/recall@50" in means


def test_candidates_are_not_compared_with_lists_of_all_items(retriever, cases):
    sampled = [
        case._replace(relevant=case.relevant[:1], candidates=[case.relevant[0], 1, 2, 3])
        for case in cases
    ]
    means = evaluate_in_detail(retriever, sampled).means
    assert "distinct_share" in means
    assert "single_interest_recall@50" not in means

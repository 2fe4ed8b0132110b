"""Metrics on cases that can be computed by hand."""

import math

import pytest

from training.evaluation.metrics import (
    CUTOFFS,
    METRIC_NAMES,
    METRICS,
    SELECTABLE,
    hit,
    measure,
    ndcg,
    ndcg_gt_order,
    ndcg_hits,
    recall,
)

A, B, C, X, Y = range(1, 6)
OF_RANKINGS = [metric.function for metric in METRICS.values() if metric.needs == "ranking"]


def test_the_three_ndcg_on_one_case():
    # Relevant a, b, c in order of time; only a is retrieved, at rank 2.
    ranked, relevant = [X, A, Y], [A, B, C]
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert ndcg(ranked, relevant, 3) == pytest.approx(1 / math.log2(3) / ideal)
    assert ndcg(ranked, relevant, 3) == pytest.approx(0.296, abs=5e-4)
    assert ndcg_hits(ranked, relevant, 3) == pytest.approx(0.631, abs=5e-4)
    assert ndcg_gt_order(ranked, relevant, 3) == 1.0


def test_ndcg_ideal_is_of_at_most_n_items():
    assert ndcg([A, B], [A, B, C], 2) == 1.0


def test_recall_and_hit():
    assert recall([X, A, B], [A, B, C], 3) == pytest.approx(2 / 3)
    assert recall([X, A, B], [A, B, C], 2) == pytest.approx(1 / 3)
    assert (hit([X, A], [A], 1), hit([X, A], [A], 2)) == (0.0, 1.0)


def test_an_item_that_was_taken_twice_counts_once():
    ranked, relevant = [X, A], [X, X, Y]
    assert recall(ranked, relevant, 5) == 0.5
    assert ndcg(ranked, relevant, 5) == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert ndcg_hits(ranked, relevant, 5) == 1.0
    assert ndcg_gt_order([Y], relevant, 5) == pytest.approx(1 / math.log2(3))
    assert recall([X, Y], relevant, 5) == ndcg([X, Y], relevant, 5) == 1.0


@pytest.mark.parametrize("metric", OF_RANKINGS)
def test_no_metric_gains_or_loses_by_repetition(metric):
    once = metric([A, X, B], [A, B, C], 3)
    assert metric([A, X, B], [A, A, B, A, C, C], 3) == once


@pytest.mark.parametrize("metric", OF_RANKINGS)
def test_perfect_and_empty_rankings(metric):
    assert metric([A, B, C], [A, B, C], 3) == 1.0
    assert metric([], [A], 3) == 0.0
    assert metric([X, Y], [A], 3) == 0.0


def test_every_registered_use_is_of_a_measured_cutoff():
    for metric in METRICS.values():
        for cutoffs in metric.uses.values():
            assert set(cutoffs) <= set(CUTOFFS)
    assert list(measure([[A]], [[X, A]])) == list(METRIC_NAMES)
    assert set(SELECTABLE) <= set(METRIC_NAMES)
    assert "hit@50" not in SELECTABLE

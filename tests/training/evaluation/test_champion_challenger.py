"""Two releases compared on one held-out day."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from index.encoders import Encoder, History, Interests
from index.release.gate import DAY_LEAD
from index.release.manifest import DataWindow, EncoderSpec, Manifest
from index.retrieval.catalog import Catalog
from index.retrieval.retriever import Retriever
from training.evaluation.champion_challenger import (
    Comparison,
    check_day,
    compare_releases,
    day_gate,
)
from training.evaluation.evaluate import exact_retriever
from training.evaluation.holdout_day import day_cases
from training.nightly.config import NightConfig


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


METRIC = "recall@50"
SETTINGS = NightConfig(root=Path("r"), events=Path("e"))


def comparison(error: float, new: float = 0.01, live_lead: float = 0.05) -> Comparison:
    """Of a day on which live has 0.1 and popularity 0.05, with this standard error."""
    return Comparison(
        users=29,
        new={METRIC: new},
        new_lead={METRIC: new - 0.05},
        popular={METRIC: 0.05},
        live={METRIC: 0.1},
        live_lead={METRIC: live_lead},
        errors={METRIC: error},
        lead_errors={METRIC: error},
    )


def test_the_allowance_for_noise_has_a_ceiling() -> None:
    few_users, many_users = (
        day_gate(comparison(0.07), SETTINGS),
        day_gate(comparison(1e-4), SETTINGS),
    )
    assert few_users.metric_drop == SETTINGS.max_metric_drop < 0.5
    assert many_users.metric_drop == SETTINGS.metric_drop
    between = day_gate(comparison(0.01), SETTINGS)
    assert between.metric_drop == pytest.approx(0.2)
    loose = SETTINGS.model_copy(update={"metric_drop": 0.6})
    assert day_gate(comparison(0.07), loose).metric_drop == 0.6


def live_manifest(lead: float) -> Manifest:
    return Manifest(
        id="live",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        code_version="test",
        encoder=EncoderSpec(name="re4", arguments={}, history_length=5),
        data=DataWindow(interactions=9, users=3, items=3, first=0, last=9),
        training={},
        metrics={DAY_LEAD: {METRIC: lead}},
    )


def test_a_day_of_few_users_is_suspect_too_where_the_lead_is_gone() -> None:
    live = live_manifest(0.2)
    assert check_day(comparison(1.0, live_lead=0.15), live, SETTINGS) == []
    (sentence,) = check_day(comparison(1.0, live_lead=0.0), live, SETTINGS)
    assert "check that the item ids of the events are right" in sentence


def test_a_lead_near_zero_may_vary_by_the_noise() -> None:
    assert check_day(comparison(0.02, live_lead=-0.02), live_manifest(0.003), SETTINGS) == []
    assert check_day(comparison(0.02, live_lead=-0.04), live_manifest(0.003), SETTINGS) != []


def test_a_day_without_any_item_that_live_knows_is_suspect(log, since) -> None:
    """As where the shop has renamed all items: then there is nothing to measure a lead on."""
    new, live = retriever(["a", "b", "c", "d"], {"b": "c"}), retriever(["I1", "I2"], {"I1": "I2"})
    result = compare_releases(log, since, day_cases(log, since), new, live)
    (sentence,) = check_day(result, live_manifest(0.2), SETTINGS)
    assert "none of the day's users took an item that the live live knows" in sentence
    assert "check that the item ids of the events are right" in sentence

"""If K is open, validation selects it."""

import json
from pathlib import Path

import pytest

from index.release.manifest import read_manifest
from index.release.reading import read_parts
from training.config import FitConfig, read_config
from training.experiments.runner import ExperimentRunner
from training.fitting.fit import fit
from training.fitting.select_interests import candidates, select_interests, with_interests

TINY = {"dim": 8, "epochs": 1, "negatives": 50, "hidden": 8}
OPEN = FitConfig(interests=None)


def test_k_is_open_by_default_for_re4_only() -> None:
    assert read_config(None, {}).interests is None
    assert read_config(None, {"interests": 4}).interests == 4
    assert read_config(None, {"encoder": "comirec-sa"}).interests == 8
    assert read_config(None, {}, "paper").interests == 8


def test_a_given_k_is_the_only_candidate() -> None:
    four = FitConfig(interests=4)
    assert candidates(four) == [four]
    assert with_interests(four, 1) == four


@pytest.mark.parametrize(
    ("metrics_of_one", "selected"),
    [
        ({"recall@50": 0.31, "ndcg@50": 0.21}, 1),
        ({"recall@50": 0.31, "ndcg@50": 0.2}, 8),
        ({"recall@50": 0.3, "ndcg@50": 0.2}, 8),
        ({"recall@50": 0.4, "ndcg@50": 0.19}, 8),
        ({"recall@50": 0.29, "ndcg@50": 0.3}, 8),
    ],
)
def test_one_interest_must_be_better_in_both_recall_and_ndcg(
    metrics_of_one: dict[str, float], selected: int
) -> None:
    by_count = {8: {"recall@50": 0.3, "ndcg@50": 0.2}, 1: metrics_of_one}
    config, metrics = select_interests(
        OPEN, lambda config: by_count[config.interests or 0], lambda metrics: metrics
    )
    assert config == with_interests(OPEN, selected)
    assert metrics == by_count[selected]


def test_the_draft_holds_the_selected_run(planted: Path, tmp_path: Path) -> None:
    log = planted / "interactions.parquet"
    runner = ExperimentRunner(log, tmp_path / "runs", lambda text: None)
    results = {k: runner.run(read_config(None, TINY | {"interests": k})) for k in (1, 8)}
    metrics = {k: result.validation for k, result in results.items()}
    better = (
        1 if all(metrics[1][name] > metrics[8][name] for name in ("recall@50", "ndcg@50")) else 8
    )

    assert runner.run(read_config(None, TINY)) == results[better]
    draft = fit(log, tmp_path, read_config(None, TINY))
    manifest = read_manifest(draft)
    assert manifest.training["interests"] == better
    assert manifest.metrics["validation"].items() >= results[better].validation.items()
    assert read_parts(draft, manifest)[0].interests == better
    assert not [*(tmp_path / "drafts").glob(".fit-*")]
    assert json.loads((draft / "history.jsonl").read_text().splitlines()[0])["epoch"] == 1

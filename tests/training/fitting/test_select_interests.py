"""Where K is open, validation says which it is to be."""

import json
from pathlib import Path

import pytest

from index.release.manifest import read_manifest
from index.release.reading import read_parts
from training.config import FitConfig, read_config
from training.experiments.runner import ExperimentRunner
from training.fitting.fit import fit
from training.fitting.select_interests import candidates, choose, settled

TINY = {"dim": 8, "epochs": 1, "negatives": 50, "hidden": 8}
OPEN = FitConfig(interests=None)


def test_it_is_open_by_default_for_re4_alone() -> None:
    assert read_config(None, {}).interests is None
    assert read_config(None, {"interests": 4}).interests == 4
    assert read_config(None, {"encoder": "comirec-sa"}).interests == 8
    assert read_config(None, {}, "paper").interests == 8


def test_what_is_settled_is_not_tried_otherwise() -> None:
    four = FitConfig(interests=4)
    assert candidates(four) == [four]
    assert settled(four, 1) == four


@pytest.mark.parametrize(
    ("of_one", "chosen"),
    [
        ({"recall@50": 0.31, "ndcg@50": 0.21}, 1),
        ({"recall@50": 0.31, "ndcg@50": 0.2}, 8),
        ({"recall@50": 0.3, "ndcg@50": 0.2}, 8),
        ({"recall@50": 0.4, "ndcg@50": 0.19}, 8),
        ({"recall@50": 0.29, "ndcg@50": 0.3}, 8),
    ],
)
def test_one_interest_has_to_be_better_in_recall_and_in_ndcg(
    of_one: dict[str, float], chosen: int
) -> None:
    found = {8: {"recall@50": 0.3, "ndcg@50": 0.2}, 1: of_one}
    config, metrics = choose(OPEN, lambda each: found[each.interests or 0], lambda found: found)
    assert config == settled(OPEN, chosen)
    assert metrics == found[chosen]


def test_the_draft_is_the_chosen_run(planted: Path, tmp_path: Path) -> None:
    log = planted / "interactions.parquet"
    laboratory = ExperimentRunner(log, tmp_path / "runs", lambda text: None)
    each = {k: laboratory.run(read_config(None, TINY | {"interests": k})) for k in (1, 8)}
    found = {k: run.validation for k, run in each.items()}
    better = 1 if all(found[1][name] > found[8][name] for name in ("recall@50", "ndcg@50")) else 8

    assert laboratory.run(read_config(None, TINY)) == each[better]
    draft = fit(log, tmp_path, read_config(None, TINY))
    manifest = read_manifest(draft)
    assert manifest.training["interests"] == better
    assert manifest.metrics["validation"] == each[better].validation
    assert read_parts(draft, manifest)[0].interests == better
    assert not [*(tmp_path / "drafts").glob(".fit-*")]
    assert json.loads((draft / "history.jsonl").read_text().splitlines()[0])["epoch"] == 1

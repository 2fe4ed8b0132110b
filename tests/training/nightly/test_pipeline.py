"""What a nightly run publishes, and what it rejects."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from index.ann.milvus_engine import ALIAS, MilvusEngine
from index.release.canary_file import read_canary
from index.release.collections import collection_of
from index.release.errors import GateRefusal
from index.release.gate import Gate
from index.release.manifest import ENCODER, digest, read_manifest, write_manifest
from index.release.publish import publish, rollback
from index.release.reading import open_release, read_current
from index.retrieval.retriever import Query
from tests.training.nightly.nightly_runs import (
    FIRST_END,
    SECOND_END,
    Killed,
    assert_rejected,
    config_of,
    export,
    kill_before,
    live_release,
    raise_killed,
    read_page,
    replace_events,
)
from training.data.errors import LogError
from training.evaluation.evaluate import evaluate_release
from training.nightly.run import run_nightly


def number_of(item: str) -> int:
    return int(item.rpartition("-")[2])


def publish_another(folder: Path) -> None:
    root = folder / "root"
    copy = shutil.copytree(root / "releases" / live_release(folder), root / "releases" / "other")
    manifest = read_manifest(copy)
    write_manifest(copy, manifest.model_copy(update={"id": "other"}))
    (root / "current").write_text("other\n")


def test_shuffled_labels_are_rejected(folder, log):
    before = live_release(folder)
    items = log["item_id"].take(pa.array(np.random.default_rng(0).permutation(len(log))))
    replace_events(folder, log.set_column(1, "item_id", items))
    outcome = run_nightly(config_of(folder))
    assert_rejected(
        folder, outcome, before, "recall@20", "check that the item ids of the events are right"
    )


def test_a_worse_model_is_rejected(folder):
    before = live_release(folder)
    slow = {"learning_rate": 1e-9, "epochs": 1}
    outcome = run_nightly(config_of(folder, cold=True, fit=slow, refit_epochs=0))
    assert_rejected(
        folder, outcome, before, "recall@20 (night) is 0.", f"of the live {before}", "is allowed"
    )
    assert run_nightly(config_of(folder, cold=True, fit=slow, refit_epochs=0)).exit_code == 4


def test_a_model_below_popularity_is_rejected_without_a_live_release_too(tmp_path, log):
    export(log, tmp_path / "events")
    slow = {"learning_rate": 1e-9, "epochs": 1}
    outcome = run_nightly(config_of(tmp_path, until=FIRST_END, fit=slow, refit_epochs=0))
    assert outcome.outcome == "refused", outcome.sentence
    assert "of popularity on the same users" in outcome.sentence
    root = tmp_path / "root"
    assert not (root / "current").exists()
    (draft,) = (root / "drafts").iterdir()
    with pytest.raises(GateRefusal, match="of popularity on the same users"):
        publish(draft, Gate(metric="recall@20"))


def test_the_index_may_be_a_collection_of_milvus(tmp_path, log):
    pytest.importorskip("pymilvus")
    export(log, tmp_path / "events")
    uri = str(tmp_path / "items.db")
    where = {"engine": "milvus", "engine_uri": uri, "engine_index": "FLAT"}
    outcomes = [
        run_nightly(config_of(tmp_path, until, **where)) for until in (FIRST_END, SECOND_END)
    ]
    assert [outcome.outcome for outcome in outcomes] == ["published", "published"]
    root = tmp_path / "root"
    current = read_current(root)
    assert current == outcomes[-1].release
    with closing(MilvusEngine(uri)) as engine:
        release = open_release(root / "releases" / current, engine=engine)
        assert engine.target(ALIAS) == collection_of(release.manifest).collection
        [answer] = release.retriever.recommend([Query([release.retriever.catalog.id(1)], 5)])
        assert len(answer.rows) == 5
    texts = [path.read_text() for path in (root / "nightly").rglob("*.json")]
    assert texts
    assert not any(uri in text for text in texts)  # it may have a password


def test_a_collapse_is_told_and_refused_only_where_a_bound_is_set(tmp_path, log, monkeypatch):
    monkeypatch.setattr("index.release.gate._COLLAPSE", 1.0)  # whatever the share, but 1
    export(log, tmp_path / "events")
    outcome = run_nightly(config_of(tmp_path, until=FIRST_END, distinct_share=1.0))
    assert outcome.outcome == "refused", outcome.sentence
    assert "below the required 1.0" in outcome.sentence
    (warning,) = outcome.details["warnings"]
    assert "its 2 interests retrieve about the same items" in warning
    page = read_page(tmp_path, outcome)
    assert f"**Warning.** {warning}" in page
    assert "a distinct share of at least 1.0, " in page
    outcome = run_nightly(config_of(tmp_path, until=FIRST_END))
    assert outcome.outcome == "published", outcome.sentence
    assert any("retrieve about the same items" in text for text in outcome.details["warnings"])


def test_a_catalog_of_half_the_size_is_rejected(folder, log):
    before = live_release(folder)
    items = log["item_id"].to_pylist()
    keep = [number_of(item) % 2 == 0 for item in items]
    replace_events(folder, log.filter(pa.array(keep)))
    outcome = run_nightly(config_of(folder, fit={"min_user_interactions": 2}, min_holdout_users=5))
    assert_rejected(folder, outcome, before, "the catalogue has", "a change of 20.0% is allowed")


def test_a_weight_that_is_not_finite_is_rejected(folder):
    before = live_release(folder)
    kill_before(folder, "build")
    (draft,) = (folder / "root" / "drafts").iterdir()
    weights = load_file(draft / ENCODER)
    name = next(name for name in weights if name.endswith("project.weight"))
    weights[name] = weights[name].clone().fill_(float("nan"))
    save_file(weights, draft / ENCODER)
    manifest = read_manifest(draft)
    files = {**manifest.files, ENCODER: digest(draft / ENCODER)}
    write_manifest(draft, manifest.model_copy(update={"files": files}))
    assert_rejected(folder, run_nightly(config_of(folder)), before, "weights that are not finite")


def test_a_diverged_fit_is_rejected(folder):
    before = live_release(folder)
    outcome = run_nightly(config_of(folder, cold=True, fit={"learning_rate": 1e18}))
    assert_rejected(folder, outcome, before, "learning rate below")


def test_a_release_that_became_live_meanwhile_is_not_replaced(folder):
    """The run fails, and the next one starts from the beginning and is compared with it."""

    def on_message(text: str) -> None:
        if text == "publish":
            publish_another(folder)

    outcome = run_nightly(config_of(folder), on_message)
    assert outcome.exit_code == 1
    assert "other is live now; compare again" in outcome.sentence
    assert live_release(folder) == "other"
    second = run_nightly(config_of(folder))
    assert (second.outcome, second.live) == ("published", "other")
    assert second.night == outcome.night


def test_a_rolled_back_release_is_rejected_if_its_publication_was_not_recorded(folder, monkeypatch):
    before = live_release(folder)
    # Killed after `current` is written and before the step is recorded.
    monkeypatch.setattr("index.release.publish.remove_old_releases", raise_killed)
    with pytest.raises(Killed):
        run_nightly(config_of(folder))
    monkeypatch.undo()
    rollback(folder / "root")
    assert_rejected(folder, run_nightly(config_of(folder)), before, "was published and rolled back")


def test_a_full_disk_fails_the_run_and_the_next_one_continues(folder, monkeypatch):
    """A full disk says nothing about the model."""

    def write_half(index: Any, path: Path) -> None:
        path.write_bytes(b"half")

    with monkeypatch.context() as patch:
        patch.setattr("index.ann.flat.FlatIndex.write", write_half)
        patch.setattr("index.ann.ivf.IvfIndex.write", write_half)
        outcome = run_nightly(config_of(folder))
    assert outcome.exit_code == 1, outcome.sentence
    assert "items.faiss cannot be written" in outcome.sentence
    messages: list[str] = []
    assert run_nightly(config_of(folder), messages.append).outcome == "published"
    assert [text for text in messages if not text.startswith("warning: ")] == ["build", "publish"]


def test_a_release_that_was_trained_on_everything_is_not_measured_on_it(folder, log, tmp_path):
    release = folder / "root" / "releases" / live_release(folder)
    times = log["timestamp"].to_numpy()
    own = tmp_path / "own.parquet"
    pq.write_table(log.filter(pa.array(times < FIRST_END)), own)
    with pytest.raises(LogError, match=r"was trained on all .*; nothing in the log is left"):
        evaluate_release(release, own)
    with pytest.raises(LogError, match="it would measure what was trained on"):
        evaluate_release(release, own, split="unseen-users")
    pq.write_table(log, own)
    metrics = evaluate_release(release, own).metrics
    last = read_manifest(release).data.last
    assert 0 < metrics["held_out_items"] <= (times > last).sum()
    # The same holds for a release that was made before manifests stated it.
    manifest = read_manifest(release)
    settings = {k: v for k, v in manifest.training.items() if not k.startswith("unseen_")}
    write_manifest(release, manifest.model_copy(update={"training": settings}))
    assert evaluate_release(release, own).metrics == metrics


def test_the_new_release_is_the_canary_first_if_wanted(folder):
    before = live_release(folder)
    outcome = run_nightly(config_of(folder, canary_share=0.1))
    assert (outcome.outcome, outcome.exit_code) == ("published", 0)
    assert outcome.sentence == f"{outcome.release} is the canary"
    assert live_release(folder) == before
    canary = read_canary(folder / "root")
    assert (canary.release, canary.share, canary.shadow) == (outcome.release, 0.1, False)
    assert f"{outcome.sentence}. Live now: {before}." in read_page(folder, outcome)
    assert run_nightly(config_of(folder, canary_share=0.1)).outcome == "nothing-new"


def test_a_run_killed_after_its_canary_was_started_ends_without_another(folder, monkeypatch):
    monkeypatch.setattr("index.release.canary_release.remove_old_releases", raise_killed)
    with pytest.raises(Killed):
        run_nightly(config_of(folder, canary_share=0.1))
    monkeypatch.undo()
    started = read_canary(folder / "root")
    outcome = run_nightly(config_of(folder, canary_share=0.1))
    assert outcome.sentence == f"{started.release} is the canary"
    assert read_canary(folder / "root") == started


def test_the_first_release_of_a_root_is_live_and_no_canary(tmp_path, log):
    export(log, tmp_path / "events")
    outcome = run_nightly(config_of(tmp_path, until=FIRST_END, canary_share=0.1))
    assert outcome.sentence == f"{live_release(tmp_path)} is live"
    assert read_canary(tmp_path / "root") is None

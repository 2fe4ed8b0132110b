"""The report of a nightly run."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index.release.reading import open_release
from index.retrieval.details import Details
from tests.training.nightly.nightly_runs import (
    FIRST_END,
    config_of,
    live_release,
    read_page,
    read_report,
    replace_events,
    run_folder,
)
from training.data.event_window import DAY_S
from training.nightly.run import run_nightly
from training.nightly.run_folders import RUNS


def test_the_first_run_publishes_and_writes_a_report(first_run):
    folder, outcome = first_run
    assert outcome.outcome == "published", outcome.sentence
    assert outcome.release == live_release(folder)
    assert outcome.details["new_recall@20"] > 2 * outcome.details["popular_recall@20"]
    assert "live_recall@20" not in outcome.details
    names = {path.name for path in run_folder(folder, outcome).iterdir()}
    plots = {"curves.png", "metrics.png", "days.png"}
    assert names == {"state.json", "report.md", "report.json", *plots}
    page = read_page(folder, outcome)
    assert outcome.details["recent_recall@20"] > 0
    assert "|   popular |   recent |" in page
    assert "distinct share" in page
    assert "(seen kept " in page
    assert "The items have no categories" in page
    assert "not below popularity's, of all time and of the last weeks" in page
    for text in ("**Window.**", "**Drift.**", "cold", "**Index.**", "**Gate.** passed", *plots):
        assert text in page
    report = read_report(folder, outcome)
    assert report["outcome"] == "published"
    assert report["window"]["counts"]["after_the_window"] > 0
    assert not list((folder / "root" / "drafts").iterdir())


def test_an_invalid_time_does_not_break_the_report(folder, log):
    invalid = log.slice(0, 20).set_column(2, "timestamp", pa.array([-(10**12)] * 20, pa.float64()))
    path = folder / "events" / "date=odd"
    path.mkdir()
    pq.write_table(invalid, path / "odd.parquet")
    outcome = run_nightly(config_of(folder, plots=True))
    assert outcome.outcome == "published", outcome.sentence
    assert "-1e+12 to 20" in read_page(folder, outcome)
    assert (run_folder(folder, outcome) / "days.png").exists()


def test_the_report_names_the_gate_the_live_release_and_unvalidated_events(folder, log):
    before = live_release(folder)
    items = log["item_id"].take(pa.array(np.random.default_rng(0).permutation(len(log))))
    replace_events(folder, log.set_column(1, "item_id", items))
    outcome = run_nightly(config_of(folder, until=FIRST_END + 6 * DAY_S))
    page = read_page(folder, outcome)
    assert f"Live now: {before}." in page
    assert "recall@20 at most" in page
    assert "new to the live release" not in page
    outcome = run_nightly(config_of(folder, holdout_days=3, min_holdout_users=5))
    page = read_page(folder, outcome)
    assert "events before that are new to the live release" in page
    last = json.loads((folder / "root" / RUNS / "last.json").read_text())
    assert (last["night"], last["outcome"]) == (outcome.night, outcome.outcome)


def test_items_nobody_has_taken_are_in_the_release_and_their_worth_in_the_report(folder, log):
    ids = sorted(set(log["item_id"].to_pylist()))
    items = folder / "items.csv"
    lines = [f"{item},group {at % 3}" for at, item in enumerate(ids)]
    items.write_text("\n".join(["item_id,category", *lines, "nobody's,group 1", "wordless,"]))
    outcome = run_nightly(config_of(folder, items=items))
    assert outcome.outcome == "published", outcome.sentence
    release = open_release(folder / "root" / "releases" / live_release(folder))
    assert release.new_items is not None
    assert "nobody's" in release.new_items.delta.ids
    assert release.new_items.details_of(["nobody's"]) == {
        "nobody's": Details(categories=["group 1"])
    }
    assert "wordless" not in release.new_items.delta.ids
    assert not any(release.retriever.catalog.rows(release.new_items.delta.ids))
    metrics = read_report(folder, outcome)["steps"]["draft"]["content"]
    assert metrics == release.manifest.metrics["content"]
    assert f"the mean cosine to the trained vector is {metrics['cosine']:.3f}" in read_page(
        folder, outcome
    )

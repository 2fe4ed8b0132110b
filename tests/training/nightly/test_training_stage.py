"""Cold and warm starts of a nightly run."""

import json

import pytest

from index.release.attributes import read_attributes
from index.release.catalog import read_catalog
from index.release.manifest import ATTRIBUTES, CATALOG, read_manifest
from tests.training.nightly.nightly_runs import (
    FIT,
    SECOND_END,
    assert_rejected,
    config_of,
    live_release,
    read_page,
    read_report,
)
from training.data.event_window import DAY_S
from training.data.item_changes import FILE
from training.nightly.run import run_nightly
from training.presets import CANDIDATES


def test_a_cold_run_starts_from_scratch(folder):
    outcome = run_nightly(config_of(folder, cold=True, refit_epochs=0, fit={"epochs": 1}))
    report = read_report(folder, outcome)
    assert not report["steps"]["fit"]["warm"]
    assert report["steps"]["fit"]["history"][0]["epoch"] == 1
    assert report["steps"]["refit"]["history"] == report["steps"]["fit"]["history"]


@pytest.mark.parametrize("cold", [False, True])
def test_an_open_k_is_kept_by_a_warm_run_and_selected_by_a_cold_one(folder, cold):
    live_count = read_manifest(folder / "root" / "releases" / live_release(folder)).training[
        "interests"
    ]
    fit = {"interests": None, "epochs": 1}
    outcome = run_nightly(config_of(folder, cold=cold, refit_epochs=0, fit=fit))
    report = read_report(folder, outcome)
    assert report["steps"]["fit"]["encoder"] is not cold
    assert (report["steps"]["fit"]["interests"] == live_count) is not cold
    assert live_count not in (1, 8)


def test_the_live_release_s_method_is_kept_until_a_search_is_told(folder):
    """The first run named K = 2; these leave method and K open."""
    fit = {name: value for name, value in FIT.items() if name != "interests"}
    fit |= {"epochs": 1, "objective": "served-max"}
    config = config_of(folder, refit_epochs=0).model_copy(update={"fit": fit})
    kept = read_report(folder, run_nightly(config))["steps"]["fit"]
    assert (kept["warm"], kept["encoder"], kept["method"]) == (True, True, "re4")
    assert (kept["interests"], kept["search"]) == (2, [])

    anew = config.model_copy(update={"search": True, "until": SECOND_END + 12 * DAY_S})
    outcome = run_nightly(anew)
    chosen = read_report(folder, outcome)["steps"]["fit"]
    [trial] = [trial for trial in chosen["search"] if trial["result"] == "chosen"]
    assert trial["candidate"].startswith(chosen["method"])
    assert CANDIDATES[trial["candidate"]]["interests"] == chosen["interests"]
    assert trial["value"] == chosen["metrics"]["recall@50"]
    assert not chosen["warm"]
    assert f"| {trial['candidate']} " in read_page(folder, outcome)


def test_vectors_of_another_length_make_a_cold_start(folder):
    outcome = run_nightly(config_of(folder, fit={"dim": 24, "epochs": 1}))
    report = read_report(folder, outcome)
    assert not report["steps"]["fit"]["warm"]


def test_a_linear_model_is_computed_anew_each_night(folder):
    """First against the live release of another encoder, then with its own day."""
    fit = {name: value for name, value in FIT.items() if name != "interests"}
    fit |= {"encoder": "linear", "ease_l2": 10.0, "objective": "served-max"}
    config = config_of(folder, max_metric_drop=1.0, popularity_drop=1.0)
    config = config.model_copy(update={"fit": fit})
    outcome = run_nightly(config)
    steps = read_report(folder, outcome)["steps"]
    assert not steps["fit"]["warm"]
    assert [record["epoch"] for record in steps["refit"]["history"]] == [0]
    manifest = read_manifest(folder / "root" / "releases" / live_release(folder))
    assert manifest.encoder.name == "linear"
    later = config.model_copy(update={"until": SECOND_END + 12 * DAY_S})
    assert not read_report(folder, run_nightly(later))["steps"]["fit"]["warm"]


def test_too_few_interactions_to_train_on_are_rejected(folder):
    before = live_release(folder)
    outcome = run_nightly(config_of(folder, fit={"min_user_interactions": 10**6}))
    assert_rejected(folder, outcome, before, "interactions")


def test_the_release_has_what_the_shop_said_about_items(folder):
    config = config_of(folder, cold=True, refit_epochs=0, fit={"epochs": 1})
    item = read_catalog(folder / "root" / "releases" / live_release(folder) / CATALOG).id(1)
    line = {"title": "Said", "categories": ["Said"], "attributes": {"price": 9.5}}
    path = config.events / FILE
    path.write_text(f"{json.dumps({'item_id': item, **line})}\n")
    before = {*(folder / "root").glob("*/*/manifest.json")}
    run_nightly(config)
    [manifest] = {*(folder / "root").glob("*/*/manifest.json")} - before
    release = manifest.parent
    catalog, columns = read_catalog(release / CATALOG), read_attributes(release / ATTRIBUTES)
    [row] = catalog.rows([item])
    assert (catalog.titles[row - 1], catalog.categories[row - 1]) == ("Said", "Said")
    assert columns["price"][row - 1] == 9.5

"""Cold and warm starts of a nightly run."""

import pytest

from index.release.manifest import read_manifest
from tests.training.nightly.nightly_runs import (
    assert_rejected,
    config_of,
    live_release,
    read_report,
)
from training.nightly.run import run_nightly


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


def test_vectors_of_another_length_make_a_cold_start(folder):
    outcome = run_nightly(config_of(folder, fit={"dim": 24, "epochs": 1}))
    report = read_report(folder, outcome)
    assert not report["steps"]["fit"]["warm"]


def test_too_few_interactions_to_train_on_are_rejected(folder):
    before = live_release(folder)
    outcome = run_nightly(config_of(folder, fit={"min_user_interactions": 10**6}))
    assert_rejected(folder, outcome, before, "interactions")

"""Printed numbers of papers."""

import tomllib
from importlib.resources import files

import pytest

from training.experiments.paper_sweeps import SWEEPS
from training.experiments.published_results import published_results

TABLES = tomllib.loads((files("training.experiments") / "published_results.toml").read_text())


def test_a_row_has_a_value_for_each_metric():
    results = published_results("re4-table6", "gowalla")
    assert results is not None
    assert results["Base"] == {"hit@20": 0.3838, "recall@20": 0.1277, "ndcg_gt_order@20": 0.2736}


def test_there_is_none_for_a_table_or_a_data_set_that_is_not_printed():
    assert published_results("re4-fig3", "gowalla") is None
    assert published_results("re4-table4", "book") is None


@pytest.mark.parametrize("sweep", TABLES)
def test_every_table_names_its_source_and_has_the_rows_of_its_sweep(sweep):
    table = dict(TABLES[sweep])
    assert f"Table {sweep.removeprefix('re4-table')}" in table.pop("source")
    table.pop("metrics")
    for data_set in table:
        results = published_results(sweep, data_set)
        assert results is not None
        assert set(results) <= set(SWEEPS[sweep])

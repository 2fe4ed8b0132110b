"""The sweeps of the Re4 paper, rerun on a small log."""

import json

import pytest

from tests.training.experiments.tiny import TINY_OPTIONS
from training.experiments.compare import system_config
from training.experiments.paper_sweeps import SWEEPS


@pytest.mark.parametrize("name", SWEEPS)
def test_sweeps_run(planted, tmp_path, name, run_command):
    log = str(planted / "interactions.parquet")
    arguments = ["reproduce", name, log, "--seeds", "1", "--out", str(tmp_path), *TINY_OPTIONS]
    result = run_command(*arguments, "--data-set", "gowalla")
    assert result.exit_code == 0, result.stderr
    markdown = (tmp_path / f"{name}.md").read_text()
    assert all(f"| {label} " in markdown for label in SWEEPS[name])
    if name == "re4-table4":
        assert "0.3140" in markdown
    if "fig" in name:
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("name", SWEEPS)
def test_every_row_of_every_sweep_has_valid_settings(name):
    for text in SWEEPS[name].values():
        json.dumps(system_config(text, {}, "paper").model_dump())

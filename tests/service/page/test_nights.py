"""The reports of nightly runs are read as far as they can be."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.page.nights import NIGHTS, REPORT, read_nights
from tests.service.page.conftest import NIGHT
from training.nightly import report, run_folders


def write(root: Path, night: str, content: Any) -> None:
    folder = root / NIGHTS / night
    folder.mkdir(parents=True)
    (folder / REPORT).write_text(content if isinstance(content, str) else json.dumps(content))


def test_a_run_is_shown_with_its_comparison(tmp_path: Path) -> None:
    write(tmp_path, "a", NIGHT)
    [night] = read_nights(tmp_path)
    assert night == {
        **{name: value for name, value in NIGHT.items() if name != "steps"},
        "metrics": {
            "new": {"recall@50": 0.18, "ndcg@50": 0.09},
            "live": {"recall@50": 0.2, "ndcg@50": 0.1},
        },
        "users": 512,
    }


def test_the_newest_come_first_and_only_some_of_them(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path, f"n{number}", {**NIGHT, "begun": 100 + number % 7 * 10 + number / 100})
    begun = [night["begun"] for night in read_nights(tmp_path)]
    assert begun == sorted(begun, reverse=True)
    assert len(begun) == 14


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1]", "null", "{}", '{"begun": "then"}', "[" * 100_000, "x" * (1 << 22) + "x"],
)
def test_what_is_no_report_is_left_out(tmp_path: Path, content: str) -> None:
    write(tmp_path, "a", content)
    write(tmp_path, "b", {"begun": 1, "outcome": "failed", "steps": {"judge": {"new": None}}})
    [night] = read_nights(tmp_path)
    assert night == {"begun": 1, "outcome": "failed", "metrics": {}, "users": None}


def test_there_may_be_no_runs(tmp_path: Path) -> None:
    assert read_nights(tmp_path) == []


def test_the_files_are_those_that_training_writes() -> None:
    assert run_folders.RUNS == NIGHTS
    assert f'"{REPORT}"' in Path(report.__file__).read_text()

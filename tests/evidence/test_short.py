"""The evidence in its short form: the same programs, less of everything."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from index.ann.kernel_choice import is_exact
from index.ann.kernels import KERNELS

FOLDER = Path(__file__).parent
BENCHMARKS = FOLDER.parent / "benchmarks"


def run(*arguments: str) -> dict[str, Any]:
    summary = to_response(FOLDER / arguments[0], *arguments[1:])
    assert summary["passed"], summary
    return summary


def to_response(program: Path, *arguments: str) -> dict[str, Any]:
    """Its summary, whatever that says; the exit status has to agree."""
    ended = subprocess.run(
        [sys.executable, program, *arguments], capture_output=True, text=True, check=False
    )
    assert ended.stdout, ended.stderr
    summary: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    assert (ended.returncode == 0) == summary["passed"], (summary, ended.stderr)
    return summary


def test_mutated_releases_are_not_served() -> None:
    summary = run("mutations.py", "--count", "40")
    assert sum(summary["refused"].values()) > 25
    assert summary["asked_meanwhile"] > 40


def test_the_contract_is_kept() -> None:
    summary = run("fuzz.py", "--count", "500")
    assert summary["requests"] >= 500
    assert summary["bad_inputs_by_hand"] >= 200
    assert {"200", "401", "404", "413", "415", "422"} <= summary["statuses"].keys()


def test_killed_exports_lose_nothing_and_write_nothing_twice() -> None:
    summary = run("export_kills.py", "--each", "1", "--random", "2")
    assert summary["kills"] >= 11
    assert summary["dropped_and_told"] > 0


@pytest.mark.slow  # the fit may end before it is killed, on a machine of another speed
def test_two_ranks_equal_one_whichever_is_killed() -> None:
    summary = run("rank_kills.py", "--kills", "1", "--users", "300", "--epochs", "2")
    assert summary["kills"] == 1
    assert summary["recall@50_one"] == summary["recall@50_two"]


def test_swaps_fail_no_request() -> None:
    summary = run("soak.py", "--minutes", "0.05", "--swap-s", "0.2")
    assert summary["swaps"] >= 1
    assert summary["requests"] > 2, "few on a busy machine"


def test_no_answer_is_of_two_releases() -> None:
    summary = run(
        *("swaps.py", "--swaps", "4", "--steady-s", "0.5", "--items", "400"),
        *("--rate", "100", "--interval-s", "0.05", "--deadline-ms", "60000"),
    )
    assert summary["loaded"] == 10
    assert summary["answers"] > 100


def test_pages_repeat_nothing_and_caps_hold() -> None:
    summary = run("impressions.py", "--requests", "1500", "--items", "60")
    assert summary["pages"] > 100
    assert summary["different_impressions"] == summary["answers"]


def test_a_worse_canary_is_aborted_and_an_equal_one_is_not() -> None:
    summary = run(
        "canary_week.py", "--simulations", "10", "--users", "4000", "--live", "worse,equal"
    )
    assert [run["verdict"] for run in summary["live"]] == ["worse", "undecided"]
    assert min(summary["live"][0]["users"].values()) > 100


def test_no_shop_sees_what_is_anothers() -> None:
    summary = run("tenants.py", "--requests", "1000", "--shops", "3", "--workers", "1")
    assert len(summary["by_shop"]) == 3
    assert min(summary["actions"].values()) > 0


@pytest.mark.parametrize("kernel", ["native-avx2", "int8-fbgemm", "float32"])
def test_filtered_answers_are_the_oracles_with_each_kernel(kernel: str) -> None:
    if not is_exact(next(each for each in KERNELS if each.name == kernel)):
        pytest.skip(f"{kernel} does not work on this processor")
    summary = run("filters.py", "--requests", "100", "--items", "0", "--kernel", kernel)
    assert summary["kernel"] == kernel
    assert summary["flat"]["identical"] > 60


def test_switches_of_the_alias_in_milvus_mix_no_answers() -> None:
    pytest.importorskip("pymilvus")
    summary = run("milvus_switches.py", "--switches", "2")
    assert summary["answers"] > 5


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy on the PATH")
def test_a_rolling_restart_fails_no_request() -> None:
    summary = run("rolling.py", "--restarts", "1", "--rate", "20")
    assert summary["replicas"] == 3
    assert summary["requests"] > 100


def test_an_overload_is_refused_and_passes(tmp_path: Path) -> None:
    summary = to_response(
        BENCHMARKS / "overload.py",
        *("--items", "2000", "--rounds", "1", "--seconds", "1", "--factors", "3"),
        *("--root", str(tmp_path)),
    )
    # How much and how soon is for a quiet machine to say.
    [told] = summary["overloads"]
    assert told["goodput_per_s"] > 0
    assert told["refused"] > 0
    assert told["other_statuses"] == 0

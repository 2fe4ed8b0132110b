"""The command line: options, sources of settings, exit codes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from training.__main__ import Training
from training.config import FitConfig
from training.data.former_names import FORMER_NAMES

Run = Callable[..., Any]
KEPT = [
    *("root", "items", "encoder", "interests", "history", "dim", "epochs", "seed", "split"),
    *("test-fraction", "preset"),
]
TINY = ["--dim", "8", "--hidden", "8", "--negatives", "20", "--interests", "2"]


@pytest.fixture
def log(planted: Path) -> Path:
    return planted / "interactions.parquet"


def settings_of(draft: str) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((Path(draft) / "manifest.json").read_text())["training"]
    return settings


def test_every_command_has_help(run_command: Run) -> None:
    for name, field in Training.model_fields.items():
        command = field.alias or name
        ended = run_command(command, "--help")
        assert ended.exit_code == 0
        assert f"usage: python -m training {command} " in ended.stdout


def test_every_setting_of_a_fit_is_an_option_with_its_default(run_command: Run) -> None:
    shown = " ".join(run_command("fit", "--help").stdout.split())
    for name, field in FitConfig.model_fields.items():
        assert f"--{name.replace('_', '-')} " in shown
        default = "" if field.default is None else f" (default: {field.default})"
        assert f"{field.description}{default}" in shown.replace("- ", "-")
    assert all(f"--{option} " in shown for option in KEPT)


def test_options_win_over_the_file_and_the_file_over_the_preset(
    log: Path, tmp_path: Path, run_command: Run
) -> None:
    toml = tmp_path / "fit.toml"
    toml.write_text('epochs = 3\nlearning_rate = 0.01\nevent_types = ["view"]\nevents = []\n')
    assert (
        "events: renamed; use event_types"
        in run_command("fit", log, "--root", tmp_path, "--config", toml).stderr
    )
    toml.write_text("epochs = 3\nlearning_rate = 0.01\n")
    fit = ["fit", log, "--root", tmp_path, *TINY, "--config", toml, "--epochs", 1]
    ended = run_command(*fit, "--preset", "paper", "--recency", "true")
    assert ended.exit_code == 0, ended.stderr
    settings = settings_of(ended.stdout.splitlines()[-1])
    assert (settings["epochs"], settings["learning_rate"]) == (1, 0.01)
    assert (settings["objective"], settings["recency"]) == ("softmax", True)


@pytest.mark.parametrize("former", FORMER_NAMES)
def test_a_former_option_is_refused_with_the_new_one(former: str, run_command: Run) -> None:
    option, new = (f"--{name.replace('_', '-')}" for name in (former, FORMER_NAMES[former]))
    for words in ([option, "1"], [f"{option}=1"]):
        ended = run_command("fit", "log.csv", "--root", "root", *words)
        assert ended.exit_code == 2
        assert ended.stderr == f"Error: {option}: renamed; use {new}\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["fit", "LOG"], 2, "root"),
        (["fit", "no.csv", "--root", "r"], 2, "no.csv: no such file or folder"),
        (["fit", "LOG", "--root", "LOG"], 2, "a file; name a folder"),
        (["fit", "LOG", "--root", "r", "--epochs", "some"], 2, "--epochs: Input should be a valid"),
        (["fit", "LOG", "--root", "r", "--epochs", "0"], 1, "epochs = 0: Input should be greater"),
        (["fit", "LOG", "--root", "r", "--config", "no.toml"], 2, "no.toml: no such file"),
        (["fit", "LOG", "--root", "r", "--threads", "0"], 2, "--threads: Input should be greater"),
        (["compare", "LOG", "--out", "o", "--trials", "9"], 2, "--trials: Input should be less"),
        (["compare", "LOG", "--out", "o", "--set", "x"], 1, "'x': not a setting; write key=value"),
        (["compare", "LOG", "--out", "o", "--set", "cosine=1"], 1, "use score_temperature"),
        (["reproduce", "re4-table99", "LOG", "--out", "o"], 2, "--name: Input should be"),
        (["nightly", "--set", "root=r", "--set", "tell=[]"], 1, "tell: renamed; use notify_on"),
        (["synthetic", "--out", "o", "--users", "1"], 2, "--users: Input should be greater"),
        (["train"], 2, "Unknown command 'train'"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_command: Run,
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run_command(*(str(log) if word == "LOG" else word for word in words))
    assert ended.exit_code == code
    assert ended.stdout == ""
    assert ended.stderr.startswith("Error: ")
    assert len(ended.stderr.splitlines()) == 1
    assert message in ended.stderr
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_setting_may_have_commas_and_quotes(tmp_path: Path, run_command: Run) -> None:
    ended = run_command(
        "nightly",
        *("--set", f"root={tmp_path}"),
        *("--set", f"events={tmp_path / 'a, b'}"),
        *("--set", 'event_types=["view","buy, now"]'),
        '--set=notify_on=["failed"]',
        *("--set", "fit.min_user_interactions=2"),
    )
    outcome = json.loads(ended.stdout.splitlines()[-1])
    assert (ended.exit_code, outcome["outcome"]) == (4, "nothing-new")
    assert f"{tmp_path / 'a, b'}: no event is in the window" in outcome["sentence"]


def test_the_synthetic_log_s_path_is_the_last_line(tmp_path: Path, run_command: Run) -> None:
    ended = run_command("synthetic", "--out", tmp_path, "--users", 20, "--items", 50, "--control")
    assert ended.exit_code == 0
    assert ended.stdout.splitlines()[-1] == str(tmp_path / "interactions.parquet")


def test_a_log_of_any_layout_is_fitted_evaluated_and_compared(
    planted: Path, tmp_path: Path, run_command: Run
) -> None:
    """The columns of the fit are those of evaluate, unless it is given others."""
    rows = pq.read_table(planted / "interactions.parquet").select(
        ["user_id", "item_id", "timestamp"]
    )
    log, moved = tmp_path / "log.csv", tmp_path / "moved.tsv"
    unquoted = csv.WriteOptions(quoting_style="none")
    csv.write_csv(rows.rename_columns(["visitor", "sku", "at"]), log, unquoted)
    with log.open("a") as file:
        file.write("half a row\n")
    moved.write_text("".join(log.read_text().splitlines(keepends=True)[1:-1]).replace(",", "\t"))
    layout = ["--columns", "user=visitor,item=sku,time=at", "--skip-bad-rows", 1]
    fit = ["fit", log, "--root", tmp_path, *TINY, "--epochs", 1]
    assert "line" in run_command(*fit, *layout[:2]).stderr
    draft = run_command(*fit, *layout).stdout.splitlines()[-1]
    assert settings_of(draft)["columns"] == ["user=visitor", "item=sku", "time=at"]
    evaluated = run_command("evaluate", draft, log).stdout
    given = ["--column-names", "visitor,sku,at", "--separator", "tab"]
    assert evaluated == run_command("evaluate", draft, moved, *given).stdout != ""
    compare = ["compare", log, "--encoders", "pop", "--out", tmp_path / "runs", *layout]
    assert run_command(*compare).exit_code == 0
    assert run_command(*compare[:-2]).exit_code == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--columns", "visitor"], "'visitor' is not ROLE=NAME"),
        (["--columns", "who=visitor"], "the roles are user, item, time, event, weight"),
        (["--separator", "::"], "'::' is not one character"),
        (["--skip-bad-rows", "-1"], "skip_bad_rows = -1"),
    ],
)
def test_a_layout_that_cannot_be_used_is_refused(
    log: Path, tmp_path: Path, run_command: Run, words: list[str], message: str
) -> None:
    for command in (
        ["fit", log, "--root", tmp_path],
        ["compare", log, "--encoders", "pop", "--out", tmp_path],
    ):
        ended = run_command(*command, *words)
        assert (ended.exit_code, ended.stdout) == (1, "")
        assert message in ended.stderr


def test_a_fit_chooses_its_method_and_says_what_it_tried(
    log: Path, tmp_path: Path, run_command: Run
) -> None:
    tiny = [word for word in TINY if word not in ("--interests", "2")]
    fit = ["fit", log, "--root", tmp_path, *tiny, "--epochs", 1, "--preset", "best"]
    ended = run_command(*fit)
    assert ended.exit_code == 0, ended.stderr
    draft = ended.stdout.splitlines()[-1]
    tried = json.loads((Path(draft) / "search.json").read_text())
    [chosen] = [trial for trial in tried if trial["result"] == "chosen"]
    settings, manifest = settings_of(draft), json.loads((Path(draft) / "manifest.json").read_text())
    assert f"{settings['encoder']}-" in chosen["candidate"]
    assert chosen["value"] == manifest["metrics"]["validation"]["recall@50"]
    assert {"search.md", "search.json", "history.jsonl"} <= manifest["files"].keys()
    assert f"search: {chosen['candidate']} is chosen" in ended.stderr
    for trial in tried:
        epochs = "0 epochs" if trial["candidate"].startswith("linear") else "1 epoch"
        assert f"search: {trial['candidate']}: {epochs}, " in ended.stderr
        assert f"| {trial['candidate']} " in (Path(draft) / "search.md").read_text()

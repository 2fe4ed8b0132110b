"""A nightly run: one at a time, each step once, and how it ends."""

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index.release.manifest import ENCODER, read_manifest
from tests.training.nightly.nightly_runs import (
    FIRST_END,
    SECOND_END,
    Killed,
    config_of,
    kill_before,
    live_release,
    read_page,
    read_report,
    run_folder,
    unfinished_run,
)
from training.data.event_window import DAY_S
from training.nightly.run import run_nightly
from training.nightly.run_folders import RUNS


def test_the_second_run_starts_warm_is_compared_and_is_not_repeated(folder):
    before = live_release(folder)
    outcome = run_nightly(config_of(folder))
    assert outcome.outcome == "published", outcome.sentence
    assert outcome.live == before
    manifest = read_manifest(folder / "root" / "releases" / live_release(folder))
    assert manifest.parent == before
    assert manifest.metrics["night"]["recall@20"] == outcome.details["new_recall@20"]
    assert manifest.data.last < SECOND_END
    report = read_report(folder, outcome)
    assert report["steps"]["fit"]["warm"]
    assert report["steps"]["fit"]["encoder"]
    assert report["steps"]["fit"]["history"][0]["epoch"] == 0
    assert report["steps"]["judge"]["users"] == report["window"]["judges"]
    assert report["window"]["since"] > FIRST_END - DAY_S
    page = read_page(folder, outcome)
    assert "then 1 epoch with the held-out day and 2 over it alone" in page
    state_path = run_folder(folder, outcome) / "state.json"
    state = state_path.read_bytes()
    messages: list[str] = []
    repeated = run_nightly(config_of(folder), messages.append)
    assert repeated.outcome == "nothing-new"
    assert "since this run was published" in repeated.sentence
    assert messages == ["read"]
    assert state_path.read_bytes() == state


def test_a_damaged_live_release_fails_the_run(folder):
    release = folder / "root" / "releases" / live_release(folder)
    (release / ENCODER).write_bytes(b"")
    outcome = run_nightly(config_of(folder))
    assert outcome.exit_code == 1
    assert ENCODER in outcome.sentence


def test_a_second_run_does_not_start_while_one_is_at_work(folder):
    with (folder / "root" / RUNS / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = run_nightly(config_of(folder))
    assert outcome.exit_code == 5
    assert "another nightly run is at work" in outcome.sentence
    assert len(outcome.sentence.splitlines()) == 1


def test_a_completed_step_is_never_repeated(folder):
    steps = ["fit", "judge", "refit", "draft", "build", "publish"]
    for number, step in enumerate(steps):
        messages: list[str] = []

        def on_message(text: str, last: str = step, messages: list[str] = messages) -> None:
            messages.append(text)
            if text == last:
                raise Killed

        with pytest.raises(Killed):
            run_nightly(config_of(folder), on_message)
        assert messages == (["read", "fit"] if number == 0 else steps[number - 1 : number + 1])
    assert run_nightly(config_of(folder)).outcome == "published"


def test_a_damaged_window_fails_the_run_with_one_sentence(folder):
    kill_before(folder, "judge")
    unfinished = unfinished_run(folder)
    (unfinished / "window.parquet").write_bytes(b"")
    messages: list[str] = []
    outcome = run_nightly(config_of(folder), messages.append)
    assert outcome.outcome == "failed"
    assert "window.parquet" in outcome.sentence


def test_a_killed_run_ends_like_an_uninterrupted_one():
    program = Path(__file__).parents[2] / "evidence" / "night_kills.py"
    arguments = ["--boundaries", "4", "--random", "3"]
    process = subprocess.run(
        [sys.executable, program, *arguments], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.splitlines()[-1])["kills"] > 4


def test_the_command_prints_the_outcome(folder, tmp_path, run_command) -> None:
    toml = tmp_path / "night.toml"
    toml.write_text(
        f'root = "{folder / "root"}"\nevents = "{folder / "events"}"\nuntil = {FIRST_END}\n'
    )
    result = run_command("nightly", "--config", toml)
    outcome = json.loads(result.stdout.splitlines()[-1])
    exit_codes = {"published": 0, "refused": 3, "nothing-new": 4}
    assert result.exit_code == exit_codes[outcome["outcome"]]
    assert result.stderr.splitlines()[-1] == outcome["sentence"]
    invalid = run_command("nightly", "--set", "kep=3")
    assert invalid.exit_code == 1
    assert "Error: " in invalid.stderr


def test_the_warnings_of_a_run_are_in_its_outcome_and_its_report(folder):
    export_beside = folder / "events" / "part-9.parquet"
    file = next((folder / "events").glob("date=*/*.parquet"))
    shutil.copyfile(file, export_beside)
    messages: list[str] = []
    outcome = run_nightly(config_of(folder), messages.append)
    assert outcome.outcome == "published", outcome.sentence
    warning, *others = outcome.to_json()["warnings"]
    assert "are in date=YYYY-MM-DD folders" in warning
    assert all("retrieve about the same items" in text for text in others)  # K is 2 here
    assert f"warning: {warning}" in messages
    assert warning in read_page(folder, outcome)


def test_an_item_file_of_other_ids_fails_the_run(folder):
    items = folder / "items.csv"
    items.write_text("item_id,title\nI1,One\n")
    outcome = run_nightly(config_of(folder, items=items))
    assert outcome.outcome == "failed"
    assert "items of the log are in the item file" in outcome.sentence


def test_a_run_erases_the_events_of_forgotten_users(folder, log):
    user = log["user_id"][0].as_py()
    late = folder / "events" / "date=2025-04-20"
    late.mkdir(exist_ok=True)
    tombstone = {
        "user_id": [user],
        "item_id": pa.array([None], pa.string()),
        "timestamp": [float(SECOND_END)],
        "event": ["forget"],
    }
    pq.write_table(pa.table(tombstone), late / "part-9.parquet")
    messages: list[str] = []
    outcome = run_nightly(config_of(folder), messages.append)
    assert outcome.outcome == "published", outcome.sentence
    assert any(message.startswith("compact: ") and "erased" in message for message in messages)
    files = (folder / "events").glob("date=*/*.parquet")
    rows = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
    assert [row["event"] for row in rows if row["user_id"] == user] == ["forget"]


def test_a_run_goes_on_where_the_events_cannot_be_compacted(folder):
    with (folder / "events" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        messages: list[str] = []
        outcome = run_nightly(config_of(folder), messages.append)
    assert outcome.outcome == "published", outcome.sentence
    assert "an export or a compaction is at work" in messages[0]

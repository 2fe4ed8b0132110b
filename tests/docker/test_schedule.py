"""When training runs start, what they run, and their metrics."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from datetime import time as time_of_day
from pathlib import Path
from types import ModuleType

import pytest
from prometheus_client import CollectorRegistry

from service.__main__ import COMMANDS

SCHEDULE = Path(__file__).parents[2] / "docker" / "schedule.py"


def printing(text: str, code: int = 0) -> list[str]:
    return [sys.executable, "-c", f"import sys; print({text!r}); sys.exit({code})"]


def outcomes_in(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["outcome"] for line in lines if line.endswith("}")]


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2026-11-21 01:00+01:00", "2026-11-21 03:00+01:00"),
        ("2026-11-21 03:00+01:00", "2026-11-22 03:00+01:00"),
        ("2026-11-21 23:59+01:00", "2026-11-22 03:00+01:00"),
        ("2026-10-24 04:00+02:00", "2026-10-25 03:00+01:00"),  # an hour longer than other days
        ("2026-12-31 12:00+01:00", "2027-01-01 03:00+01:00"),
    ],
)
@pytest.mark.usefixtures("in_berlin")
def test_the_next_run_is_at_the_next_local_time_of_day(
    schedule: ModuleType, now: str, due: str
) -> None:
    after_s = datetime.fromisoformat(now).timestamp()
    due_s = schedule.next_run_s(time_of_day(3), after_s)
    assert due_s == datetime.fromisoformat(due).timestamp()


DAY_S = 86_400.0
THREE_O_CLOCK = datetime.fromisoformat("2026-11-21 03:00+01:00").timestamp()


@pytest.mark.parametrize(
    ("ended_s", "now_s", "expected_s"),
    [
        (None, 3600.0, DAY_S),  # no run before, so none was missed
        (900.0, 3600.0, DAY_S),
        (-DAY_S + 900.0, 3600.0, 3600.0),  # cut short, or not started
        (-DAY_S + 900.0, -10.0, 0.0),
        (-30 * DAY_S, 3600.0, 3600.0),
    ],
)
@pytest.mark.usefixtures("in_berlin")
def test_a_missed_run_starts_at_once(
    schedule: ModuleType, ended_s: float | None, now_s: float, expected_s: float
) -> None:
    """Times are seconds after three o'clock."""
    ended = [] if ended_s is None else [{"ended": THREE_O_CLOCK + ended_s}]
    due_s = schedule.first_run_s(time_of_day(3), ended, THREE_O_CLOCK + now_s)
    assert due_s - THREE_O_CLOCK == expected_s


def test_the_outcome_is_the_last_line_of_the_training(schedule: ModuleType) -> None:
    train = printing('fit\n{"outcome": "refused", "sentence": "too small"}', code=3)
    outcome = schedule.run_once(printing('{"events": 5, "lost": 2}'), train)
    assert outcome.pop("ended") >= outcome.pop("seconds") > 0
    assert outcome == {
        "outcome": "refused", "sentence": "too small", "code": 3,
        "exported": {"events": 5, "lost": 2},
    }  # fmt: skip


def test_after_a_failed_export_nothing_is_trained(schedule: ModuleType, tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    train = [sys.executable, "-c", f"open({str(trained)!r}, 'w')"]
    outcome = schedule.run_once(printing("no Redis", code=1), train)
    assert (outcome["outcome"], outcome["code"]) == ("failed", 1)
    assert "export ended with 1" in outcome["sentence"]
    assert not trained.exists()


def test_beside_another_export_no_run_is_counted(schedule: ModuleType, tmp_path: Path) -> None:
    outcome = schedule.run_once(printing("", code=5), printing("must not run", code=1))
    assert (outcome["outcome"], outcome["code"]) == ("running", 5)
    path = tmp_path / "nights.jsonl"
    schedule.append_outcome(outcome, path)
    assert schedule.read_outcomes(path) == []


def test_a_killed_training_has_failed(schedule: ModuleType) -> None:
    outcome = schedule.run_once(printing(""), printing("Killed", code=137))
    assert (outcome["outcome"], outcome["code"]) == ("failed", 137)


def test_a_failed_run_is_retried_and_a_refused_one_is_not(
    schedule: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "nights.jsonl"
    monkeypatch.setattr(schedule, "OUTCOMES", path)
    monkeypatch.setattr(schedule, "RETRY_DELAY_S", 0.0)
    monkeypatch.setattr(schedule, "EXPORT", printing(""))
    monkeypatch.setattr(schedule, "TRAIN", printing("died", code=1))
    assert schedule.run_with_retries()["outcome"] == "failed"
    assert outcomes_in(path) == ["retried", "retried", "failed"]
    assert [outcome["outcome"] for outcome in schedule.read_outcomes(path)] == ["failed"]
    monkeypatch.setattr(
        schedule, "TRAIN", printing('{"outcome": "refused", "sentence": ""}', code=3)
    )
    assert schedule.run_with_retries()["outcome"] == "refused"
    assert outcomes_in(path)[3:] == ["refused"]


def lost_events(schedule: ModuleType, path: Path) -> float:
    families = list(schedule.TrainingRuns(path).collect())
    values = {sample.name: sample.value for family in families for sample in family.samples}
    return values["re4_training_run_lost_events_total"]


@pytest.fixture
def outcomes(schedule: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "nights.jsonl"
    monkeypatch.setattr(schedule, "OUTCOMES", path)
    monkeypatch.setattr(schedule, "RETRY_DELAY_S", 0.0)
    return path


ONCE = """
import json, pathlib, sys
first = not pathlib.Path(sys.argv[1]).exists()
pathlib.Path(sys.argv[1]).touch()
print(json.dumps({"events": 7, "lost": 5000 if first else 0}))
sys.exit(int(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("train", "outcome"),
    [
        (printing("died", code=1), "failed"),
        (printing('{"outcome": "running", "sentence": ""}', code=5), "running"),
        (printing('{"outcome": "published", "sentence": ""}'), "published"),
    ],
)
def test_lost_events_are_counted_once_whatever_becomes_of_the_run(
    schedule: ModuleType,
    outcomes: Path,
    monkeypatch: pytest.MonkeyPatch,
    train: list[str],
    outcome: str,
) -> None:
    export = [sys.executable, "-c", ONCE, str(outcomes.with_name("exported")), "0"]
    monkeypatch.setattr(schedule, "EXPORT", export)
    monkeypatch.setattr(schedule, "TRAIN", train)
    assert schedule.run_with_retries()["outcome"] == outcome
    assert lost_events(schedule, outcomes) == 5000


def test_events_lost_by_an_export_that_failed_are_counted(
    schedule: ModuleType, outcomes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = [sys.executable, "-c", ONCE, str(outcomes.with_name("exported")), "1"]
    monkeypatch.setattr(schedule, "EXPORT", export)
    with pytest.raises(SystemExit):
        schedule.main(["now"])
    assert lost_events(schedule, outcomes) == 5000


def test_lost_events_are_counted_although_the_run_was_killed(
    schedule: ModuleType, outcomes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = [sys.executable, "-c", ONCE, str(outcomes.with_name("exported")), "0"]
    monkeypatch.setattr(schedule, "EXPORT", export)
    kill = "import os, signal; os.kill(os.getppid(), signal.SIGTERM); signal.pause()"
    monkeypatch.setattr(schedule, "TRAIN", [sys.executable, "-c", kill])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit):
            schedule.main(["now"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert schedule.read_outcomes(outcomes) == []
    assert lost_events(schedule, outcomes) == 5000


def test_the_metrics_of_the_runs(training_runs: CollectorRegistry) -> None:
    value = training_runs.get_sample_value
    assert value("re4_training_runs_total", {"outcome": "published"}) == 1
    assert value("re4_training_runs_total", {"outcome": "running"}) is None
    assert value("re4_training_run_last", {"outcome": "failed"}) == 1
    assert value("re4_training_run_last", {"outcome": "published"}) is None
    assert value("re4_training_run_ended_timestamp_seconds") == 200
    assert value("re4_training_run_seconds") == 2
    assert value("re4_training_run_lost_events_total") == 3
    # The failed run was not evaluated: the scores are those of the run before.
    assert value("re4_training_run_score", {"model": "live", "metric": "recall@50"}) == 0.3


def test_before_the_first_run_there_are_no_metrics(schedule: ModuleType, tmp_path: Path) -> None:
    families = list(schedule.TrainingRuns(tmp_path / "none").collect())
    values = {sample.name: sample.value for family in families for sample in family.samples}
    assert values == {"re4_training_run_lost_events_total": 0}


def test_the_commands_exist(schedule: ModuleType) -> None:
    assert schedule.EXPORT[1:3] == ["-m", "service"]
    assert schedule.EXPORT[3] in COMMANDS
    assert schedule.TRAIN[1:3] == ["-m", "training"]
    words = [*schedule.TRAIN[:4], "--help"]
    assert subprocess.run(words, stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_ending_the_schedule_ends_its_commands(tmp_path: Path) -> None:
    """As `docker stop` does in the middle of a training run."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    waiting = (
        f"import os, signal; pipe = open({str(pipe)!r}, 'w'); pipe.write(str(os.getpid()));"
        "pipe.close(); signal.pause()"
    )
    program = (
        f"import runpy, sys; main = runpy.run_path({str(SCHEDULE)!r})['main'];"
        f"main.__globals__.update(EXPORT=[sys.executable, '-c', {waiting!r}]); main(['now'])"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    child = int(pipe.read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_line_cut_short_by_a_crash_spoils_no_other(schedule: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "nights.jsonl"
    schedule.append_outcome({"outcome": "published"}, path)
    with path.open("a") as file:
        file.write('{"outcome": "failed", "exported": {"lost": 1}')
    schedule.append_outcome({"outcome": "refused"}, path)
    outcomes = [outcome["outcome"] for outcome in schedule.read_outcomes(path)]
    assert outcomes == ["published", "refused"]


@pytest.mark.parametrize(
    ("at", "message"), [("never", "no training run is scheduled"), ("3 am", "give a time")]
)
def test_the_schedule_accepts_never_and_refuses_other_words(at: str, message: str) -> None:
    program = (
        f"import runpy, signal; main = runpy.run_path({str(SCHEDULE)!r})['main'];"
        f"main.__globals__.update(PORT=0); signal.pause = exit; main([])"
    )
    process = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "NIGHTLY_AT": at},
        capture_output=True,
        text=True,
        check=False,
    )
    assert message in process.stdout + process.stderr
    assert process.returncode == (at != "never")

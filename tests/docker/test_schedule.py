"""When the nights begin, what they run, and what is told of them."""

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

from service.__main__ import main as service_cli
from training.__main__ import Training

SCHEDULE = Path(__file__).parents[2] / "docker" / "schedule.py"


def says(text: str, code: int = 0) -> list[str]:
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
    ("now", "then"),
    [
        ("2026-11-21 01:00+01:00", "2026-11-21 03:00+01:00"),
        ("2026-11-21 03:00+01:00", "2026-11-22 03:00+01:00"),
        ("2026-11-21 23:59+01:00", "2026-11-22 03:00+01:00"),
        ("2026-10-24 04:00+02:00", "2026-10-25 03:00+01:00"),  # an hour longer than other days
        ("2026-12-31 12:00+01:00", "2027-01-01 03:00+01:00"),
    ],
)
@pytest.mark.usefixtures("in_berlin")
def test_the_next_night_is_the_next_time_the_clock_shows_it(
    schedule: ModuleType, now: str, then: str
) -> None:
    after_s = datetime.fromisoformat(now).timestamp()
    due_s = schedule.next_night(time_of_day(3), after_s)
    assert due_s == datetime.fromisoformat(then).timestamp()


DAY_S = 86_400.0
THREE_O_CLOCK = datetime.fromisoformat("2026-11-21 03:00+01:00").timestamp()


@pytest.mark.parametrize(
    ("ended_s", "now_s", "begins_s"),
    [
        (None, 3600.0, DAY_S),  # what has never been is not made up for
        (900.0, 3600.0, DAY_S),
        (-DAY_S + 900.0, 3600.0, 3600.0),  # cut short, or not begun
        (-DAY_S + 900.0, -10.0, 0.0),
        (-30 * DAY_S, 3600.0, 3600.0),
    ],
)
@pytest.mark.usefixtures("in_berlin")
def test_a_night_that_was_missed_is_made_up_for_at_the_start(
    schedule: ModuleType, ended_s: float | None, now_s: float, begins_s: float
) -> None:
    """All in seconds after three o'clock."""
    ended = [] if ended_s is None else [{"ended": THREE_O_CLOCK + ended_s}]
    due_s = schedule.first_night(time_of_day(3), ended, THREE_O_CLOCK + now_s)
    assert due_s - THREE_O_CLOCK == begins_s


def test_the_outcome_is_what_the_training_says_last(schedule: ModuleType) -> None:
    train = says('fit\n{"outcome": "refused", "sentence": "too small"}', code=3)
    outcome = schedule.night(says('{"events": 5, "lost": 2}'), train)
    assert outcome.pop("ended") >= outcome.pop("seconds") > 0
    assert outcome == {
        "outcome": "refused", "sentence": "too small", "code": 3,
        "exported": {"events": 5, "lost": 2},
    }  # fmt: skip


def test_without_an_export_nothing_is_trained(schedule: ModuleType, tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    train = [sys.executable, "-c", f"open({str(trained)!r}, 'w')"]
    outcome = schedule.night(says("no Redis", code=1), train)
    assert (outcome["outcome"], outcome["code"]) == ("failed", 1)
    assert "export ended with 1" in outcome["sentence"]
    assert not trained.exists()


def test_beside_another_export_there_is_no_night(schedule: ModuleType, tmp_path: Path) -> None:
    outcome = schedule.night(says("", code=5), says("must not be run", code=1))
    assert (outcome["outcome"], outcome["code"]) == ("running", 5)
    path = tmp_path / "nights.jsonl"
    schedule.keep(outcome, path)
    assert schedule.kept(path) == []


def test_a_training_that_dies_has_failed(schedule: ModuleType) -> None:
    outcome = schedule.night(says(""), says("Killed", code=137))
    assert (outcome["outcome"], outcome["code"]) == ("failed", 137)


def test_what_failed_is_tried_again_and_what_was_refused_is_not(
    schedule: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "nights.jsonl"
    monkeypatch.setattr(schedule, "OUTCOMES", path)
    monkeypatch.setattr(schedule, "PAUSE_S", 0.0)
    monkeypatch.setattr(schedule, "EXPORT", says(""))
    monkeypatch.setattr(schedule, "TRAIN", says("died", code=1))
    assert schedule.attempt()["outcome"] == "failed"
    assert outcomes_in(path) == ["retried", "retried", "failed"]
    assert [outcome["outcome"] for outcome in schedule.kept(path)] == ["failed"]
    monkeypatch.setattr(schedule, "TRAIN", says('{"outcome": "refused", "sentence": ""}', code=3))
    assert schedule.attempt()["outcome"] == "refused"
    assert outcomes_in(path)[3:] == ["refused"]


def test_what_is_told_of_the_nights(nights: CollectorRegistry) -> None:
    value = nights.get_sample_value
    assert value("re4_nights_total", {"outcome": "published"}) == 1
    assert value("re4_nights_total", {"outcome": "running"}) is None
    assert value("re4_night_last", {"outcome": "failed"}) == 1
    assert value("re4_night_last", {"outcome": "published"}) is None
    assert value("re4_night_ended_timestamp_seconds") == 200
    assert value("re4_night_seconds") == 2
    assert value("re4_night_lost_events_total") == 3
    # The one that failed was not judged: what is known is of the one before.
    assert value("re4_night_score", {"who": "live", "metric": "recall@50"}) == 0.3


def test_before_the_first_night_nothing_is_told(schedule: ModuleType, tmp_path: Path) -> None:
    told = list(schedule.Nights(tmp_path / "none").collect())
    values = {sample.name: sample.value for family in told for sample in family.samples}
    assert values == {"re4_night_lost_events_total": 0}


def test_the_commands_exist(schedule: ModuleType) -> None:
    assert schedule.EXPORT[1:3] == ["-m", "service"]
    assert schedule.EXPORT[3] in service_cli.commands
    assert schedule.TRAIN[1:3] == ["-m", "training"]
    assert schedule.TRAIN[3] in Training.model_fields


def test_who_ends_the_schedule_ends_what_it_runs(tmp_path: Path) -> None:
    """As `docker stop` does in the middle of a night."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    waits = (
        f"import os, signal; pipe = open({str(pipe)!r}, 'w'); pipe.write(str(os.getpid()));"
        "pipe.close(); signal.pause()"
    )
    program = (
        f"import runpy, sys; main = runpy.run_path({str(SCHEDULE)!r})['main'];"
        f"main.__globals__.update(EXPORT=[sys.executable, '-c', {waits!r}]); main(['now'])"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    child = int(pipe.read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_what_a_crash_cuts_short_spoils_no_other(schedule: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "nights.jsonl"
    schedule.keep({"outcome": "published"}, path)
    with path.open("a") as file:
        file.write('{"outcome": "failed", "exported": {"lost": 1}')
    schedule.keep({"outcome": "refused"}, path)
    told = [outcome["outcome"] for outcome in schedule.kept(path)]
    assert told == ["published", "refused"]


@pytest.mark.parametrize(("at", "said"), [("never", "no night begins"), ("3 am", "give a time")])
def test_the_schedule_may_say_never_and_no_nonsense(tmp_path: Path, at: str, said: str) -> None:
    program = (
        f"import runpy, signal; main = runpy.run_path({str(SCHEDULE)!r})['main'];"
        f"main.__globals__.update(PORT=0); signal.pause = exit; main([])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "NIGHTLY_AT": at},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said in ended.stdout + ended.stderr
    assert ended.returncode == (at != "never")

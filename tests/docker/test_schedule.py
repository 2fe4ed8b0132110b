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
from training.__main__ import main as training_cli

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


def test_a_training_that_dies_has_failed(schedule: ModuleType) -> None:
    outcome = schedule.night(says(""), says("Killed", code=137))
    assert (outcome["outcome"], outcome["code"]) == ("failed", 137)


def test_what_failed_is_tried_again_and_what_was_refused_is_not(
    schedule: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "nights.jsonl"
    monkeypatch.setattr(schedule, "OUTCOMES", kept)
    monkeypatch.setattr(schedule, "PAUSE_S", 0.0)
    monkeypatch.setattr(schedule, "EXPORT", says(""))
    monkeypatch.setattr(schedule, "TRAIN", says("died", code=1))
    assert schedule.attempt()["outcome"] == "failed"
    assert len(outcomes_in(kept)) == schedule.ATTEMPTS
    monkeypatch.setattr(schedule, "TRAIN", says('{"outcome": "refused", "sentence": ""}', code=3))
    assert schedule.attempt()["outcome"] == "refused"
    assert len(outcomes_in(kept)) == schedule.ATTEMPTS + 1


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
    assert schedule.TRAIN[3] in training_cli.commands


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
    assert process.wait(timeout=30) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_what_a_crash_cuts_short_spoils_no_other(schedule: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "nights.jsonl"
    schedule.keep({"outcome": "published"}, path)
    with path.open("a") as file:
        file.write('{"outcome": "fai')
    schedule.keep({"outcome": "refused"}, path)
    assert outcomes_in(path) == ["published", "refused"]

"""Every day at NIGHTLY_AT, by the clock of TZ: export what was heard, then train on it.

One that was cut short or missed, as while the machine was off, is made up for at the start. Where
NIGHTLY_AT is `never` none begins. With the argument `now` once, at once, with the night's exit
code. How the nights ended is kept in a file beside the releases, and told to Prometheus on port
9101 as long as the schedule runs.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

PYTHON = sys.executable
EXPORT = [PYTHON, "-m", "service", "export-events"]
TRAIN = [PYTHON, "-m", "training", "nightly", "--config", "/stack/night.toml"]
OUTCOMES = Path("/shop/nights.jsonl")
PORT = 9101
BUSY = 5  # what an export or a night ends with while another is at work
# What fails, such as a Redis that is being restarted, may well not fail a little later. A night
# goes on where it was.
ATTEMPTS = 3
PAUSE_S = 600.0
_PATIENCE_S = 60.0  # a clock that is set meanwhile is seen as soon as that

# Outcomes of what was no night: another was at work, or what failed is tried once more.
RUNNING, RETRIED = "running", "retried"
NEVER = "never"

Outcome = dict[str, Any]


def next_night(at: time_of_day, after_s: float) -> float:
    """The next moment at which the clock on the wall shows `at`, in Unix seconds like after_s."""
    day = datetime.fromtimestamp(after_s).date()
    moment = datetime.combine(day, at).timestamp()
    if moment <= after_s:
        moment = datetime.combine(day + timedelta(days=1), at).timestamp()
    return moment


def first_night(at: time_of_day, ended: Sequence[Outcome], now_s: float) -> float:
    """When to begin: now, where since the last that ended another was due. Unix seconds."""
    return max(now_s, next_night(at, ended[-1]["ended"] if ended else now_s))


def night(export: Sequence[str], train: Sequence[str]) -> Outcome:
    """Run both, the second only if the first went well; the outcome is what it says last."""
    started_s = time.time()
    code, exported = _run(export)
    outcome: Outcome = {"outcome": "failed", "sentence": f"the export ended with {code}"}
    if code == BUSY:
        outcome = {"outcome": RUNNING, "sentence": "another export is at work"}
    if code == 0:
        code, said = _run(train)
        outcome = said or {"outcome": "failed", "sentence": f"the training ended with {code}"}
    ended_s = time.time()
    about = {"code": code, "ended": ended_s, "seconds": ended_s - started_s, "exported": exported}
    return {**outcome, **about}


def _run(command: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Exit code, and the JSON object that it said last, if it did. Ended itself, this ends it."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said, _ = process.communicate()
        except BaseException:
            process.terminate()
            raise
    print(said, end="", flush=True)
    last = said.rstrip("\n").rpartition("\n")[2]
    return process.returncode, json.loads(last) if last.startswith("{") else {}


def keep(outcome: Outcome, path: Path) -> None:
    """On a line of its own, even after one that a crash has cut short."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{json.dumps(outcome)}\n")


def kept(path: Path) -> list[Outcome]:
    """All outcomes, but for those of what was no night, and what a crash has cut short."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    outcomes = []
    for line in filter(None, lines):
        with suppress(ValueError):
            outcomes.append(json.loads(line))
    return [outcome for outcome in outcomes if outcome["outcome"] not in (RUNNING, RETRIED)]


class Nights(Collector):
    """What Prometheus is told of the outcomes in a file, which others may write too."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def collect(self) -> Iterator[Metric]:
        outcomes = kept(self._path)
        count = CounterMetricFamily("re4_nights", "Nights by outcome.", labels=["outcome"])
        for name, number in Counter(outcome["outcome"] for outcome in outcomes).items():
            count.add_metric([name], number)
        yield count
        lost = CounterMetricFamily("re4_night_lost_events", "Dropped from Redis before any export.")
        lost.add_metric([], sum(outcome["exported"].get("lost", 0) for outcome in outcomes))
        yield lost
        last = GaugeMetricFamily("re4_night_last", "1: how it ended.", labels=["outcome"])
        score = GaugeMetricFamily(
            "re4_night_score",
            "On the held-out day of the last night that was judged, of new, live and popular.",
            labels=["who", "metric"],
        )
        if outcomes:
            last.add_metric([outcomes[-1]["outcome"]], 1)
        for who, metric, value in _scores(outcomes):
            score.add_metric([who, metric], value)
        yield last
        yield score
        yield _gauge("re4_night_ended_timestamp_seconds", "When it ended.", outcomes, "ended")
        yield _gauge("re4_night_seconds", "How long it took.", outcomes, "seconds")


def _scores(outcomes: list[Outcome]) -> Iterator[tuple[str, str, float]]:
    judged = [
        [(*name.split("_", 1), value) for name, value in outcome.items() if "@" in name]
        for outcome in outcomes
    ]
    yield from next((scores for scores in reversed(judged) if scores), [])


def _gauge(name: str, meaning: str, outcomes: list[Outcome], key: str) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, f"The last night: {meaning}")
    if outcomes:
        gauge.add_metric([], outcomes[-1][key])
    return gauge


def attempt() -> Outcome:
    """One night, tried again where it failed."""
    for left in reversed(range(ATTEMPTS)):
        outcome = night(EXPORT, TRAIN)
        again = left > 0 and outcome["outcome"] == "failed"
        keep({**outcome, "outcome": RETRIED} if again else outcome, OUTCOMES)
        if not again:
            break
        print(f"failed; once more in {PAUSE_S:.0f} s", flush=True)
        time.sleep(PAUSE_S)
    return outcome


def schedule(at: time_of_day | None) -> None:
    registry = CollectorRegistry()
    registry.register(Nights(OUTCOMES))
    start_http_server(PORT, registry=registry)
    if at is None:
        print(f"no night begins: NIGHTLY_AT is {NEVER}", flush=True)
        while True:
            signal.pause()
    due_s = first_night(at, kept(OUTCOMES), time.time())
    while True:
        print(
            f"the next night begins at {datetime.fromtimestamp(due_s):%Y-%m-%d %H:%M}", flush=True
        )
        while (left_s := due_s - time.time()) > 0:
            time.sleep(min(left_s, _PATIENCE_S))
        attempt()
        due_s = next_night(at, time.time())


def _end(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def main(arguments: list[str]) -> None:
    signal.signal(signal.SIGTERM, _end)
    if arguments == ["now"]:
        outcome = night(EXPORT, TRAIN)
        keep(outcome, OUTCOMES)
        raise SystemExit(outcome["code"])
    given = os.environ.get("NIGHTLY_AT", "03:00")
    try:
        at = None if given == NEVER else time_of_day.fromisoformat(given)
    except ValueError:
        raise SystemExit(
            f"NIGHTLY_AT is {given!r}; give a time of the day, as 03:00, or {NEVER}"
        ) from None
    schedule(at)


if __name__ == "__main__":
    main(sys.argv[1:])

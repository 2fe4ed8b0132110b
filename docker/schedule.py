"""Every day at NIGHTLY_AT, in the time zone TZ: export the events, then train on them.

A run that was cut short or missed, such as while the machine was off, is made up for at the start.
If NIGHTLY_AT is `never`, no run is scheduled. With the argument `now`, one run starts at once and
its exit code is the program's. The outcomes are kept in a file beside the releases, and exported to
Prometheus on port 9101 while the schedule runs.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
EXIT_BUSY = 5  # exit code of an export or a training run while another one runs
# A failure, such as a Redis that restarts, may not happen again a little later. A training run
# resumes where it stopped.
MAX_ATTEMPTS = 3
RETRY_DELAY_S = 600.0
_MAX_SLEEP_S = 60.0  # so that a changed clock is noticed

# Records that do not count as runs: another one was running, a retry follows, or only the export
# has ended. The last has the lost events, which are counted whatever becomes of the run.
RUNNING, RETRIED, EXPORTED = "running", "retried", "exported"
NEVER = "never"

Outcome = dict[str, Any]


def next_run_s(at: time_of_day, after_s: float) -> float:
    """The next moment at which the local clock shows `at`, in Unix seconds like after_s."""
    day = datetime.fromtimestamp(after_s).date()
    moment = datetime.combine(day, at).timestamp()
    if moment <= after_s:
        moment = datetime.combine(day + timedelta(days=1), at).timestamp()
    return moment


def first_run_s(at: time_of_day, outcomes: Sequence[Outcome], now_s: float) -> float:
    """When the first run starts: now if one was due since the last outcome. Unix seconds."""
    return max(now_s, next_run_s(at, outcomes[-1]["ended"] if outcomes else now_s))


def run_once(
    export: Sequence[str],
    train: Sequence[str],
    on_export: Callable[[Outcome], None] = lambda _: None,
) -> Outcome:
    """Export, then train if the export succeeded; the outcome is the last line of the training.

    on_export gets the last line of the export, also if it failed, before the training begins.
    """
    started_s = time.time()
    code, exported = _run(export)
    on_export(exported)
    outcome: Outcome = {"outcome": "failed", "sentence": f"the export ended with {code}"}
    if code == EXIT_BUSY:
        outcome = {"outcome": RUNNING, "sentence": "another export is running"}
    if code == 0:
        code, summary = _run(train)
        outcome = summary or {"outcome": "failed", "sentence": f"the training ended with {code}"}
    ended_s = time.time()
    record = {"code": code, "ended": ended_s, "seconds": ended_s - started_s, "exported": exported}
    return {**outcome, **record}


def _run(command: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Exit code, and the JSON object of the last line if there is one; ends with this process."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            process.terminate()
            raise
    print(output, end="", flush=True)
    last_line = output.rstrip("\n").rpartition("\n")[2]
    return process.returncode, json.loads(last_line) if last_line.startswith("{") else {}


def append_outcome(outcome: Outcome, path: Path) -> None:
    """On a line of its own, even after one that a crash has cut short."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{json.dumps(outcome)}\n")


def recorded_run() -> Outcome:
    """One attempt. The events that its export lost are on record before it trains."""
    outcome = run_once(EXPORT, TRAIN, _record_export)
    lost = outcome["exported"].pop("lost", 0)
    return {**outcome, "lost_events": lost}


def _record_export(exported: Outcome) -> None:
    if exported.get("lost"):
        append_outcome({"outcome": EXPORTED, "exported": exported, "ended": time.time()}, OUTCOMES)


def read_outcomes(path: Path) -> list[Outcome]:
    """The outcomes of runs."""
    no_runs = (RUNNING, RETRIED, EXPORTED)
    return [record for record in read_records(path) if record["outcome"] not in no_runs]


def read_records(path: Path) -> list[Outcome]:
    """Everything in the file except what a crash has cut short."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    records = []
    for line in filter(None, lines):
        with suppress(ValueError):
            records.append(json.loads(line))
    return records


class TrainingRuns(Collector):
    """Prometheus metrics of the outcomes in a file, which other processes may write too."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def collect(self) -> Iterator[Metric]:
        outcomes = read_outcomes(self._path)
        yield _counts(outcomes)
        lost = CounterMetricFamily(
            "re4_training_run_lost_events", "Events dropped from Redis before they were exported."
        )
        exports = (record.get("exported", {}) for record in read_records(self._path))
        lost.add_metric([], sum(export.get("lost", 0) for export in exports))
        yield lost
        last = GaugeMetricFamily(
            "re4_training_run_last", "1 for the outcome of the last run.", labels=["outcome"]
        )
        if outcomes:
            last.add_metric([outcomes[-1]["outcome"]], 1)
        yield last
        yield _scores(outcomes)
        yield _gauge("re4_training_run_ended_timestamp_seconds", "end time", outcomes, "ended")
        yield _gauge("re4_training_run_seconds", "duration", outcomes, "seconds")


def _counts(outcomes: list[Outcome]) -> CounterMetricFamily:
    counter = CounterMetricFamily(
        "re4_training_runs", "Training runs by outcome.", labels=["outcome"]
    )
    for name, number in Counter(outcome["outcome"] for outcome in outcomes).items():
        counter.add_metric([name], number)
    return counter


def _scores(outcomes: list[Outcome]) -> GaugeMetricFamily:
    """Metrics of the last run that was evaluated; their keys are like new_recall@50."""
    gauge = GaugeMetricFamily(
        "re4_training_run_score",
        "Metrics on the held-out day of the last evaluated run, of new, live and popular.",
        labels=["model", "metric"],
    )
    for outcome in reversed(outcomes):
        scores = {name: value for name, value in outcome.items() if "@" in name}
        if scores:
            for name, value in scores.items():
                gauge.add_metric(name.split("_", 1), value)
            break
    return gauge


def _gauge(name: str, meaning: str, outcomes: list[Outcome], key: str) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, f"The last training run: {meaning}.")
    if outcomes:
        gauge.add_metric([], outcomes[-1][key])
    return gauge


def run_with_retries() -> Outcome:
    """One training run, retried if it failed."""
    for left in reversed(range(MAX_ATTEMPTS)):
        outcome = recorded_run()
        retry = left > 0 and outcome["outcome"] == "failed"
        append_outcome({**outcome, "outcome": RETRIED} if retry else outcome, OUTCOMES)
        if not retry:
            break
        print(f"failed; retry in {RETRY_DELAY_S:.0f} s", flush=True)
        time.sleep(RETRY_DELAY_S)
    return outcome


def schedule(at: time_of_day | None) -> None:
    """Start the runs, forever. at: local time of day; None for never."""
    registry = CollectorRegistry()
    registry.register(TrainingRuns(OUTCOMES))
    start_http_server(PORT, registry=registry)
    if at is None:
        print(f"no training run is scheduled: NIGHTLY_AT is {NEVER}", flush=True)
        while True:
            signal.pause()
    due_s = first_run_s(at, read_outcomes(OUTCOMES), time.time())
    while True:
        print(f"next training run: {datetime.fromtimestamp(due_s):%Y-%m-%d %H:%M}", flush=True)
        while (left_s := due_s - time.time()) > 0:
            time.sleep(min(left_s, _MAX_SLEEP_S))
        run_with_retries()
        due_s = next_run_s(at, time.time())


def _end(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def main(arguments: list[str]) -> None:
    signal.signal(signal.SIGTERM, _end)
    if arguments == ["now"]:
        outcome = recorded_run()
        append_outcome(outcome, OUTCOMES)
        raise SystemExit(outcome["code"])
    value = os.environ.get("NIGHTLY_AT", "03:00")
    try:
        at = None if value == NEVER else time_of_day.fromisoformat(value)
    except ValueError:
        raise SystemExit(
            f"NIGHTLY_AT: {value!r}; give a time of day such as 03:00, or {NEVER}"
        ) from None
    schedule(at)


if __name__ == "__main__":
    main(sys.argv[1:])

"""One nightly run: continue the interrupted one or begin a new one, report it, notify, clean up.

Only one run works in a root at a time. An interrupted run continues with the data it began with; a
run that has ended is not repeated. Whatever fails, the live release stays live.
"""

import json
import shutil
import time
from contextlib import suppress
from pathlib import Path

from index.release.atomic_io import fsync, replace_text
from index.release.canary_file import canary_release_id
from index.release.errors import GateRefusal, ReleaseError
from index.release.lock import exclusive_lock
from index.release.reading import read_current
from training.data.errors import LogError
from training.data.event_compaction import compact_events
from training.fitting.trainer import DivergedError
from training.nightly.config import NightConfig, OutcomeName
from training.nightly.notifications import MessageCallback, post_webhook, run_command
from training.nightly.outcome import (
    AlreadyRunningError,
    NothingNewError,
    Outcome,
    RejectedError,
    error_sentence,
)
from training.nightly.pipeline import NightlyPipeline
from training.nightly.run_folders import (
    ABANDONED,
    LAST_OUTCOME,
    RUNS,
    clean_up,
    read_outcome,
    remove_run,
    unfinished_run,
)
from training.nightly.run_warnings import collected_warnings, with_warnings
from training.nightly.step_store import StepStore
from training.nightly.window import WINDOW, hold_out_day, read_new_window

_LOCK = ".lock"
_READING = ".reading"


def run_nightly(config: NightConfig, on_message: MessageCallback = lambda message: None) -> Outcome:
    """Do a nightly run, or continue an interrupted one. Raises no error: each becomes an Outcome.

    on_message gets the name of each step. Notifications are sent at least once.
    """
    runs = config.root / RUNS
    locked = AlreadyRunningError(f"{runs}: another nightly run is at work; wait until it has ended")
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(runs / _LOCK, locked):
            return _run_locked(config, runs, on_message)
    except AlreadyRunningError as error:
        outcome = Outcome("running", str(error))
    except Exception as error:
        outcome = Outcome("failed", error_sentence(error), live=_live_release(config.root))
    _notify(config, outcome, on_message)
    return outcome


def _run_locked(config: NightConfig, runs: Path, on_message: MessageCallback) -> Outcome:
    clean_up(config, runs)
    try:
        live = _live_release(config.root)
        if config.compact_events:
            _compact(config.events, on_message)
        store = unfinished_run(config, runs, live) or _new_run(config, runs, on_message)
    except NothingNewError as error:
        outcome = Outcome("nothing-new", str(error), live=_live_release(config.root))
        _notify(config, outcome, on_message)
        return outcome
    pipeline = NightlyPipeline(config, store, on_message)
    with collected_warnings(on_message) as warnings:
        outcome = _run_pipeline(pipeline)
    outcome = with_warnings(outcome, [*store.metadata.get("warnings", ()), *warnings])
    _report(pipeline, outcome, on_message)
    _notify(config, outcome, on_message)
    if outcome.outcome != "failed":
        store.update(ended=outcome.to_json())
        clean_up(config, runs)
    return outcome


def _compact(events: Path, on_message: MessageCallback) -> None:
    """A failure stops no run: the rows are left out of it anyway, and erased by a later one."""
    try:
        done = compact_events(events)
    except (LogError, OSError) as error:
        on_message(f"compact: nothing was erased from {events} ({error})")
        return
    if done.rows:
        on_message(f"compact: {done.rows:,} rows of forgotten users erased from {events}")


def _new_run(config: NightConfig, runs: Path, on_message: MessageCallback) -> StepStore:
    """Read the window of a new run, whose folder then appears atomically.

    Raises NothingNewError if this run has ended before, or there is too little in the window.
    """
    reading = runs / _READING
    shutil.rmtree(reading, ignore_errors=True)
    reading.mkdir()
    try:
        on_message("read")
        with collected_warnings(on_message) as warnings:
            metadata = read_new_window(config, reading)
        metadata["warnings"] = warnings
        folder = runs / metadata["night"]
        ended = read_outcome(folder)
        if ended is not None and ended["outcome"] != ABANDONED:
            raise NothingNewError(
                f"{folder.name}: no event has come since this run was {ended['outcome']} "
                f"({ended['sentence']})"
            )
        remove_run(config, folder)
        metadata["window"] |= hold_out_day(config, reading / WINDOW, metadata["live"])
        StepStore(reading).update(**metadata)
        reading.rename(folder)
        fsync(runs)
        return StepStore(folder)
    finally:
        shutil.rmtree(reading, ignore_errors=True)


def _run_pipeline(pipeline: NightlyPipeline) -> Outcome:
    release: str | None = None
    name: OutcomeName
    try:
        release = pipeline.run()
        is_canary = canary_release_id(pipeline.config.root) == release
        name, sentence = "published", f"{release} is {'the canary' if is_canary else 'live'}"
    except (RejectedError, DivergedError, GateRefusal) as error:
        name, sentence = "refused", str(error)
    except Exception as error:
        name, sentence = "failed", error_sentence(error)
    return Outcome(name, sentence, pipeline.name, release, pipeline.live_id, pipeline.scores())


def _live_release(root: Path) -> str | None:
    try:
        return read_current(root)
    except ReleaseError:
        return None


def _report(pipeline: NightlyPipeline, outcome: Outcome, on_message: MessageCallback) -> None:
    from training.nightly.report import write_report

    try:
        write_report(pipeline, outcome.to_json())
    except Exception as error:
        on_message(f"report: could not be written ({error_sentence(error)})")


def _notify(config: NightConfig, outcome: Outcome, on_message: MessageCallback) -> None:
    """Write the last outcome, and call the webhook and the command if they are set."""
    message = outcome.to_json()
    if outcome.outcome != "running":
        with suppress(OSError):  # the failure may be that the root cannot be written
            document = json.dumps({**message, "ended": time.time()}, indent=2)
            replace_text(config.root / RUNS / LAST_OUTCOME, document + "\n")
    if outcome.outcome not in config.notify_on:
        return
    timeout_s = config.notification_timeout_s
    if config.webhook is not None:
        post_webhook(config.webhook, message, timeout_s, config.webhook_attempts, on_message)
    if config.notification_command is not None:
        run_command(config.notification_command, message, timeout_s, on_message)

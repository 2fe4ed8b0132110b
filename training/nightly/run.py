"""Every night: which one is to be done, alone; and what is left of it when it has ended.

<root>/nightly/<id>/         id: the day of the last event, and a hash of data and settings
    state.json               which steps are done, and with what result
    report.md, report.json   what came out, for people and for programs; and plots
    window.parquet, fit/, settle/, refit/, draft/   what the steps hand on; gone in the end
<root>/nightly/last.json     how it ended the last time, also where there was no night

One that was cut short goes on where it was, with the data it began with; one that has ended is not
done again. Whatever goes wrong, the live release goes on serving.
"""

import hashlib
import json
import shutil
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from index.release.atomic_io import discard, fsync, replace_text
from index.release.errors import GateRefusal, ReleaseError
from index.release.lock import exclusive_lock
from index.release.manifest import DRAFTS, RELEASES, digest, read_manifest
from index.release.reading import read_current
from training.config import ConfigError
from training.data.event_window import DAY_S, read_window, write_window
from training.data.interactions import LogError
from training.data.readers import read_log
from training.evaluation.holdout_day import asked
from training.fitting.trainer import DivergedError
from training.nightly import notifications as hook
from training.nightly.config import NightConfig, OutcomeName
from training.nightly.notifications import Say
from training.nightly.pipeline import DRAFT, HANDED_ON, WINDOW, Night, RefusedError
from training.nightly.step_store import STATE, Result, Steps

NIGHTS = "nightly"
LAST = "last.json"
EXIT_CODES: Mapping[OutcomeName, int] = {
    "published": 0,
    "failed": 1,
    "refused": 3,  # 2 is for a command that was not understood
    "nothing-new": 4,
    "running": 5,
}
_LOCK = ".lock"
_READING = ".reading"
GIVEN_UP = "given up"  # the outcome of a night that may be done again, from the beginning


class NothingNewError(Exception):
    """There is too little that the live release has not seen to make, and compare, another."""


class RunningError(Exception):
    """Another night is at work in this root."""


@dataclass(frozen=True)
class Outcome:
    """How a night ended: the one sentence, and what a program may want to know."""

    outcome: OutcomeName
    sentence: str
    night: str | None = None
    release: str | None = None
    live: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]

    def to_json(self) -> dict[str, Any]:
        told = asdict(self)
        details: dict[str, Any] = told.pop("details")
        return told | details


def nightly(config: NightConfig, say: Say = lambda text: None) -> Outcome:
    """Do tonight's work, or go on with what is left of it. Raises nothing: all is an Outcome.

    say is told what is being done. Whoever is to be told of the outcome is told at least once.
    """
    nights = config.root / NIGHTS
    held = RunningError(f"{nights}: a night is at work; wait until it has ended")
    try:
        nights.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(nights / _LOCK, held):
            return _night(config, nights, say)
    except RunningError as error:
        outcome = Outcome("running", str(error))
    except Exception as error:
        outcome = Outcome("failed", _sentence(error), live=_live(config.root))
    _tell(config, outcome, say)
    return outcome


def _night(config: NightConfig, nights: Path, say: Say) -> Outcome:
    _sweep(config, nights)
    try:
        steps = _unfinished(config, nights) or _begun(config, nights, say)
    except NothingNewError as error:
        outcome = Outcome("nothing-new", str(error), live=_live(config.root))
        _tell(config, outcome, say)
        return outcome
    night = Night(config, steps, say)
    outcome = _outcome(night)
    _report(night, outcome, say)
    _tell(config, outcome, say)
    if outcome.outcome != "failed":
        steps.note(ended=outcome.to_json())
        _sweep(config, nights)
    return outcome


def _outcome(night: Night) -> Outcome:
    release: str | None = None
    name: OutcomeName
    try:
        release = night.run()
        name, sentence = "published", f"{release} is live"
    except (RefusedError, DivergedError, GateRefusal) as error:
        name, sentence = "refused", str(error)
    except Exception as error:
        name, sentence = "failed", _sentence(error)
    return Outcome(name, sentence, night.name, release, night.live_id, night.scores())


def _sentence(error: Exception) -> str:
    """Of an error that is expected its own; of others the type too, and the trace for the log."""
    if isinstance(error, ConfigError | LogError | ReleaseError | OSError):
        return str(error)
    traceback.print_exception(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _live(root: Path) -> str | None:
    try:
        return read_current(root)
    except ReleaseError:
        return None


# --- which night ---


def _unfinished(config: NightConfig, nights: Path) -> Steps | None:
    """The night that was cut short, if it was one of these settings, not long ago, and its way is
    not barred: by another release that is live by now."""
    live = _live(config.root)
    for steps in _all(nights):
        about = steps.about
        if "ended" in about:
            continue
        hours = (time.time() - about["started"]) / 3600
        made = steps.result(DRAFT).get("draft")
        if steps.done("publish") and live != made:
            steps.note(ended={"outcome": "published", "sentence": f"{made} was live"})
            continue
        if (
            about["settings"] == config.settings()
            and hours < config.resume_h
            and live in (about["live"], made)
        ):
            return steps
        steps.note(ended={"outcome": GIVEN_UP, "sentence": "too old, or what it was for is gone"})
    return None


def _begun(config: NightConfig, nights: Path, say: Say) -> Steps:
    """A new night with its window read, whose folder appears whole.

    Raises NothingNewError if this night has ended before, or there is too little in it.
    """
    reading = nights / _READING
    shutil.rmtree(reading, ignore_errors=True)
    reading.mkdir()
    try:
        say("read")
        about = _read(config, reading)
        folder = nights / about["night"]
        ended = _ended(folder)
        if ended is not None and ended["outcome"] != GIVEN_UP:
            raise NothingNewError(
                f"{folder.name}: no event has come since this night was {ended['outcome']} "
                f"({ended['sentence']})"
            )
        _remove(config, folder)
        about["window"] |= _held_out(config, reading / WINDOW, about["live"])
        Steps(reading).note(**about)
        reading.rename(folder)
        fsync(nights)
        return Steps(folder)
    finally:
        shutil.rmtree(reading, ignore_errors=True)


def _read(config: NightConfig, folder: Path) -> dict[str, Any]:
    """Write the window, and return what is known of the night so far."""
    until = time.time() if config.until is None else config.until
    fit = config.fit_config(warm=False)
    window = read_window(
        config.events, config.log, fit, config.event_types, config.window_days, until
    )
    if not window.counts["kept"]:
        there = "" if config.events.is_dir() else ", and there is no such folder"
        raise NothingNewError(
            f"{config.events}: no event is in the window{there}; {_told(window.counts)}"
        )
    write_window(window, folder / WINDOW)
    fsync(folder / WINDOW)
    day = datetime.fromtimestamp(window.rows["timestamp"][-1].as_py(), UTC)
    return {
        "night": f"{day:%Y-%m-%d}-{_fingerprint(config, folder / WINDOW)}",
        "settings": config.settings(),
        "started": time.time(),
        "live": read_current(config.root),
        "window": {"counts": window.counts},
    }


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items())


def _fingerprint(config: NightConfig, window: Path) -> str:
    settings = json.dumps(config.settings(), sort_keys=True)
    return hashlib.sha256((settings + digest(window).sha256).encode()).hexdigest()[:8]


def _held_out(config: NightConfig, window: Path, live: str | None) -> Result:
    """Where the held-out day begins: never before the end of what the live release has seen."""
    log = read_log(window, "parquet")
    first, last = float(log.times.min()), float(log.times.max())
    since, seen = last - config.holdout_days * DAY_S, -np.inf
    if config.holdout_fraction is not None:
        since = float(np.quantile(log.times, 1 - config.holdout_fraction))
    if live is not None:
        seen = read_manifest(config.root / RELEASES / live).data.last
        since = max(since, float(np.nextafter(seen, np.inf)))
    cases, new = len(asked(log, since)), int((log.times >= since).sum())
    if cases < config.min_holdout_users:
        why = "wait for more, or lower min_holdout_users"
        if not config.events.is_dir():
            why += "; there is no such folder yet"
        elif seen > last:
            why = f"{live} has seen up to {seen:g}: is that of the same unit of time as {last:g}?"
        raise NothingNewError(
            f"{config.events}: {new:,} events to hold out, which leave {cases:,} users to compare "
            f"on, where {config.min_holdout_users:,} are needed; {why}"
        )
    return {
        "users": len(log.user_ids),
        "items": len(log.item_ids),
        "first": first,
        "since": since,
        "last": last,
        "held_out": new,
        "untried": int(((log.times > seen) & (log.times < since)).sum()) if live else 0,
        "judges": cases,
    }


# --- its end ---


def _report(night: Night, outcome: Outcome, say: Say) -> None:
    from training.nightly.report import write_report

    try:
        write_report(night, outcome.to_json())
    except Exception as error:
        say(f"report: could not be written ({_sentence(error)})")


def _tell(config: NightConfig, outcome: Outcome, say: Say) -> None:
    if outcome.outcome != "running":
        with suppress(OSError):  # a root that cannot be written was the reason, perhaps
            told = {**outcome.to_json(), "ended": time.time()}
            replace_text(config.root / NIGHTS / LAST, json.dumps(told, indent=2) + "\n")
    if outcome.outcome not in config.notify_on:
        return
    if config.webhook is not None:
        attempts, timeout_s = config.webhook_attempts, config.notification_timeout_s
        hook.post(config.webhook, outcome.to_json(), timeout_s, attempts, say)
    if config.notification_command is not None:
        hook.run(config.notification_command, outcome.to_json(), config.notification_timeout_s, say)


def _all(nights: Path) -> list[Steps]:
    """The newest first; not those whose record cannot be read."""
    found = []
    for path in nights.glob(f"[!.]*/{STATE}"):
        with suppress(ValueError):
            found.append(Steps(path.parent))
    return sorted(found, key=lambda steps: float(steps.about["started"]), reverse=True)


def _ended(folder: Path) -> Result | None:
    """How the night of a folder ended; given up, if its record cannot be read."""
    if not folder.exists():
        return None
    try:
        ended: Result = Steps(folder).about["ended"]
    except (ValueError, KeyError):
        return {"outcome": GIVEN_UP, "sentence": "its record cannot be read"}
    return ended


def _remove(config: NightConfig, folder: Path) -> None:
    """All that there is of a night that is to be done from the beginning."""
    for draft in (config.root / DRAFTS).glob(f"{folder.name}-*"):
        discard(draft)
    discard(folder)


def _sweep(config: NightConfig, nights: Path) -> None:
    """Remove what the steps of ended nights handed on, the drafts that were published, and the
    oldest nights with the drafts that were not."""
    ended = [steps for steps in _all(nights) if "ended" in steps.about]
    for age, steps in enumerate(ended):
        for name in HANDED_ON:
            discard(steps.folder / name)
        old = age >= config.keep_runs
        draft = steps.result(DRAFT).get("draft")
        if draft is not None and (old or steps.about["ended"]["outcome"] == "published"):
            discard(config.root / DRAFTS / draft)
        if old:
            discard(steps.folder)

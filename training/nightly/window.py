"""The data of a new run: the window of events, and the held-out day at its end."""

import hashlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from index.release.atomic_io import fsync
from index.release.manifest import RELEASES, Manifest, digest, read_manifest
from index.release.reading import read_current
from training.data.errors import LogError
from training.data.event_window import DAY_S, read_window, write_window
from training.data.interactions import Interactions
from training.data.log_options import LogSource
from training.data.readers import read_log
from training.data.time_units import describe, to_seconds, unit_of
from training.evaluation.holdout_day import day_cases
from training.nightly.config import NightConfig
from training.nightly.outcome import NothingNewError
from training.nightly.step_store import Result

WINDOW = "window.parquet"


def read_new_window(config: NightConfig, folder: Path) -> dict[str, Any]:
    """Write the window to `folder` and return the metadata of the run.

    Raises NothingNewError if the window has no event.
    """
    until = time.time() if config.until is None else config.until
    fit = config.fit_config(warm=False)
    window = read_window(
        config.events, config.log, fit, config.event_types, config.window_days, until
    )
    if not window.counts["kept"]:
        hint = "" if config.events.is_dir() else ", and there is no such folder"
        counts = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in window.counts.items())
        raise NothingNewError(f"{config.events}: no event is in the window{hint}; {counts}")
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


def read_window_log(config: NightConfig, window: Path) -> Interactions:
    """The window's interactions, with the weights of their event types."""
    fit = config.fit_config(warm=False)
    source = LogSource(
        event_weights=fit.event_weights,
        event_effects=fit.event_effects,
        log_engine=fit.log_engine,
        memory_limit=fit.memory_limit,
        spill_directory=fit.spill_directory,
    )
    return read_log(window, "parquet", source=source)


def _fingerprint(config: NightConfig, window: Path) -> str:
    settings = json.dumps(config.settings(), sort_keys=True)
    return hashlib.sha256((settings + digest(window).sha256).encode()).hexdigest()[:8]


def hold_out_day(config: NightConfig, window: Path, live: str | None) -> Result:
    """Where the held-out day begins, and what the window holds before and after that.

    The day never begins before the end of the data that the live release was trained on.
    Raises NothingNewError if it has fewer users to compare on than the settings require, LogError
    if its times are not in the unit of the live release's.
    """
    log = read_window_log(config, window)
    first, last = float(log.times.min()), float(log.times.max())
    since = last - config.holdout_days * DAY_S
    if config.holdout_fraction is not None:
        since = float(np.quantile(log.times, 1 - config.holdout_fraction))
    seen_until = _seen_until(read_manifest(config.root / RELEASES / live), last) if live else None
    if seen_until is not None:
        _check_unit(str(live), seen_until, last)
        since = max(since, float(np.nextafter(seen_until, np.inf)))
    cases, held_out = len(day_cases(log, since)), int((log.times >= since).sum())
    if cases < config.min_holdout_users:
        raise NothingNewError(
            f"{config.events}: {held_out:,} events to hold out, which leave {cases:,} users to "
            f"compare on, where {config.min_holdout_users:,} are needed; "
            f"{_too_few_hint(config, live, seen_until, last)}"
        )
    earlier = log.times[log.times < since]
    unvalidated = 0 if seen_until is None else int((earlier > seen_until).sum())
    return {
        "users": len(log.user_ids),
        "items": len(log.item_ids),
        "first": first,
        "since": since,
        "last": last,
        "held_out": held_out,
        "untried": unvalidated,
        "seen_until": seen_until,
        "judges": cases,
    }


def _seen_until(live: Manifest, last: float) -> float | None:
    """The time, in Unix seconds, up to which the live release has seen the events.

    None if it is unknown. A release cannot have seen what came after it was made: if its manifest
    says so, as of a log with one row dated 2099, then what came later is new; if nothing did, its
    day is held out as if it were new, so that such a row does not end every later run.
    last: the time of the newest event in the window.
    """
    seen_until, created = to_seconds(live.data.last), live.created.timestamp()
    if seen_until <= created + DAY_S:
        return seen_until
    return created if created < last else None


def _check_unit(live: str, seen_until: float, last: float) -> None:
    if unit_of(seen_until) == "seconds" and unit_of(last) is None:
        raise LogError(
            f"the newest event, {describe(last)}, unlike those that {live} was trained on (up to "
            f"{seen_until:.0f}); give the events in Unix seconds"
        )


def _too_few_hint(config: NightConfig, live: str | None, seen: float | None, last: float) -> str:
    if not config.events.is_dir():
        return "wait for more, or lower min_holdout_users; there is no such folder yet"
    if seen is not None and seen > last:
        return (
            f"{live} was trained on events up to {seen:.0f}, and the newest event is at {last:.0f}:"
            " wait for more, and check that the export is complete"
        )
    return "wait for more, or lower min_holdout_users"

"""The data of a new run: the window of events, and the held-out day at its end."""

import hashlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from index.release.atomic_io import fsync
from index.release.manifest import RELEASES, digest, read_manifest
from index.release.reading import read_current
from training.data.event_window import DAY_S, read_window, write_window
from training.data.readers import read_log
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


def _fingerprint(config: NightConfig, window: Path) -> str:
    settings = json.dumps(config.settings(), sort_keys=True)
    return hashlib.sha256((settings + digest(window).sha256).encode()).hexdigest()[:8]


def hold_out_day(config: NightConfig, window: Path, live: str | None) -> Result:
    """Where the held-out day begins, and what the window holds before and after that.

    The day never begins before the end of the data that the live release was trained on.
    Raises NothingNewError if it has fewer users to compare on than the settings require.
    """
    log = read_log(window, "parquet")
    first, last = float(log.times.min()), float(log.times.max())
    since, seen_until = last - config.holdout_days * DAY_S, -np.inf
    if config.holdout_fraction is not None:
        since = float(np.quantile(log.times, 1 - config.holdout_fraction))
    if live is not None:
        seen_until = read_manifest(config.root / RELEASES / live).data.last
        since = max(since, float(np.nextafter(seen_until, np.inf)))
    cases, held_out = len(day_cases(log, since)), int((log.times >= since).sum())
    if cases < config.min_holdout_users:
        raise NothingNewError(
            f"{config.events}: {held_out:,} events to hold out, which leave {cases:,} users to "
            f"compare on, where {config.min_holdout_users:,} are needed; "
            f"{_too_few_hint(config, live, seen_until, last)}"
        )
    unvalidated = int(((log.times > seen_until) & (log.times < since)).sum()) if live else 0
    return {
        "users": len(log.user_ids),
        "items": len(log.item_ids),
        "first": first,
        "since": since,
        "last": last,
        "held_out": held_out,
        "untried": unvalidated,
        "judges": cases,
    }


def _too_few_hint(config: NightConfig, live: str | None, seen_until: float, last: float) -> str:
    if not config.events.is_dir():
        return "wait for more, or lower min_holdout_users; there is no such folder yet"
    if seen_until > last:
        return (
            f"{live} was trained on events up to {seen_until:g}, the newest event is at {last:g}: "
            "are both in the same unit of time?"
        )
    return "wait for more, or lower min_holdout_users"

"""Whether the base log and the events of a window fit each other, and its settings fit them."""

import time
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow.compute as pc

from training.data.errors import LogError
from training.data.matching import check_matches, require_event_types, warn
from training.data.time_units import PER_SECOND, describe, unit_names, unit_of
from training.data.window_rows import Source, WindowRows

_REPLAY_S = 86_400.0  # a window that ends earlier than this ago is of the past on purpose
_FEW_ITEMS = 20  # so few may all be new
_LITTLE_COMMON = 0.1


def check_units(rows: WindowRows, log: Path | None, events: Path) -> None:
    """Raises LogError if one of the two is in another unit than seconds, or only one in none.

    A few events in another unit do not stop the run: one client may have sent them.
    """
    paths: dict[Path | None, Source] = {log: "base", events: "events"}
    moments = {path: rows.typical_time(part) for path, part in paths.items() if rows.size(part)}
    units = {path: unit_of(moment) for path, moment in moments.items()}
    if set(units.values()) <= {"seconds"} or set(units.values()) == {None}:
        return
    wrong = next(path for path, unit in units.items() if unit != "seconds")
    others = [f", and in {path} {describe(moments[path])}" for path in units if path != wrong]
    per_second = PER_SECOND.get(units[wrong] or "")
    remedy = f"divide its times by {per_second:,}" if per_second else "correct its times"
    raise LogError(
        f"{wrong}: a typical timestamp, {describe(moments[wrong])}{''.join(others)}; the window is "
        f"in days, so both have to be in Unix seconds: {remedy}"
    )


def check_common_items(rows: WindowRows, log: Path | None, events: Path) -> None:
    """Raises UnmatchedError if the log has none of the events' items, warns if it has few."""
    known, ids = rows.distinct("item_id", "base"), rows.distinct("item_id", "events")
    if not len(known) or len(ids) < _FEW_ITEMS:
        return
    check_matches(
        events,
        pc.sum(pc.is_in(ids, known)).as_py() or 0,
        len(ids),
        f"items of the events are in {log}",
        f"both need the same ids, where the events have such as {pc.min(ids).as_py()!r} and the "
        f"log {pc.min(known).as_py()!r}",
        _LITTLE_COMMON,
    )


def check_event_rows(
    rows: WindowRows, events: Path, event_types: Sequence[str], until: float
) -> None:
    """Raises UnmatchedError if no event has one of the types; warns of types that none has, and of
    events in the future."""
    total = rows.size("events") - rows.tombstones()
    if event_types and total:
        found = rows.distinct("event", "events").to_pylist()
        require_event_types(events, event_types, found, total, "events", "event_types")
    late = rows.late_times(until)
    if len(late) and until >= time.time() - _REPLAY_S:
        units = ", ".join(unit_names(late))
        warn(
            f"{events}: {len(late):,} of {rows.size('events'):,} events are later than the end of "
            f"the window and left out{f' (some are in {units})' if units else ''}; check the "
            "clocks of those who send them"
        )


def check_event_weights(
    rows: WindowRows, log: Path | None, events: Path, weights: Collection[str]
) -> None:
    """Raises UnmatchedError if neither log nor events have an event type that has a weight; warns
    of types that neither has."""
    total = rows.size("base") + rows.size("events") - rows.tombstones()
    if weights and total:
        found = [name for name in rows.event_types() if name]
        subject = f"{log} and {events}" if log else events
        require_event_types(subject, weights, found, total, "interactions", "event_weights")


def check_base(log: Path | None, is_empty: bool, total: int) -> None:
    """Warn if the whole base log is left out, which a short window may be meant to do."""
    if total and is_empty:
        warn(
            f"{log}: 0 of {total:,} interactions of the log are in the window; lengthen "
            "window_days, or remove the log from the settings"
        )

"""Log files to Interactions, block by block."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index.event_kinds import EventKinds
from training.data.bad_rows import BadRows
from training.data.columns import Block, Columns
from training.data.errors import LogError
from training.data.id_encoding import encode_event_types, encode_ids
from training.data.interactions import Interactions
from training.data.log_engine import open_collection
from training.data.log_files import open_files
from training.data.log_options import LogSource
from training.data.matching import check_event_types, warn
from training.data.time_units import TimeUnit
from training.data.values import (
    BadColumnError,
    BadValueError,
    is_one,
    parse_offsets,
    parse_timestamps,
    parse_weights,
    to_binary,
)

# A user has suspiciously many interactions with this share of the log, and this multiple of what
# the median user has.
_HEAVY_SHARE, _HEAVY_MULTIPLE = 0.01, 20


class _Filter(NamedTuple):
    """Of the rows to keep: one of these event types, at least this weight, and of an effect on
    histories.

    found: is given the event types that there are. weighted: whether those of the rows are read.
    """

    path: Path
    events: Collection[str] | None
    min_weight: float | None
    found: set[str]
    weighted: bool
    kinds: EventKinds


class _Rows(NamedTuple):
    """The rows of a block; kept (n,): those that are interactions and pass the filter.

    events: None unless they have weights. undoes (n,): rows that take another back; None if the log
    has no event types.
    """

    users: pa.DictionaryArray
    items: pa.DictionaryArray
    events: pa.DictionaryArray | None
    times: NDArray[np.float64] | None
    kept: NDArray[np.bool_]
    undoes: NDArray[np.bool_] | None


def read_log(
    path: Path,
    format: str = "auto",
    events: Collection[str] | None = None,
    min_weight: float | None = None,
    source: LogSource | None = None,
) -> Interactions:
    """The interactions of a file, or of all files below a folder.

    format: a key of training.data.formats.FORMATS, or auto: detected by name and content.
    Times are numbers, kept as they are, or ISO 8601, which becomes Unix seconds; UTC where no zone
    is given; all are in one unit, and none is in the future. events: keep only interactions with
    one of these. min_weight: keep only those of at least this weight; ratings are weights, and an
    empty weight is 1. Ids are opaque strings of 1 to MAX_ID_BYTES bytes of UTF-8. source: columns,
    separator, unit of time, how many bad rows may be skipped, how many interactions of a user are
    kept, effects and weights of event types, and the engine; its format is not read.
    Raises LogError, naming the line, if a value cannot be used; also if nothing is kept.
    """
    source = (source or LogSource()).model_copy(update={"format": format})
    bad, records = BadRows(path, source.skip_bad_rows), 0
    weighted, kinds = bool(source.event_weights), source.event_kinds
    selected = _Filter(path, events, min_weight, set(), weighted, kinds)
    collection = open_collection(path, source)
    for rows in _rows(path, source, selected, bad):
        times, end = rows.times, records + len(rows.kept)
        if times is None:
            times = np.arange(records, end, dtype=np.float64)
        collection.add(rows.users, rows.items, rows.events, times, rows.kept, rows.undoes)
        records = end
    bad.report()
    if not len(collection):
        raise LogError(f"{path}: {_empty_reason(records, events, min_weight)}")
    check_event_types(path, events or (), selected.found, records, "interactions")
    log = collection.to_interactions(source.weights_by_event if selected.weighted else None)
    if not len(log):
        raise LogError(f"{path}: each interaction is taken back by a later one; see event_effects")
    return _without_old(path, log, source.max_user_interactions)


def _rows(path: Path, source: LogSource, selected: _Filter, bad: BadRows) -> Iterator[_Rows]:
    """The blocks of all files, without bad rows."""
    unit = TimeUnit()
    for file, format in open_files(path, source):
        columns = format.columns
        if source.time_unit is not None:
            columns = columns.with_unit(source.time_unit)

        def parse(block: Block, columns: Columns = columns) -> _Rows:
            return _parse(block, columns, selected, unit)

        for block in format.blocks(file, bad):
            yield _parse_good(block, parse, bad)


def _parse_good(block: Block, parse: Callable[[Block], _Rows], bad: BadRows) -> _Rows:
    """The block without its bad rows. Raises LogError if there are more than allowed."""
    while True:
        try:
            return parse(block)
        except BadColumnError as error:
            raise LogError(f"{block.locate(error.record)}: {error}") from None
        except BadValueError as error:
            is_good = np.ones(len(block.users), dtype=bool)
            for record, reason in error.problems:
                bad.add(partial(block.locate, record), reason)
                is_good[record] = False
            block = block.take(np.flatnonzero(is_good))


def _parse(block: Block, columns: Columns, selected: _Filter, unit: TimeUnit) -> _Rows:
    """Raises BadValueError for the first value that cannot be used."""
    kept, undoes = _selection(block, selected), None
    if block.events is not None:
        kept &= ~_is_one_of(block.events, selected.kinds.named("exclude", "shown", "none"))
        undoes = _is_one_of(block.events, selected.kinds.named("undo"))
    users, items = encode_ids(block.users, "user id"), encode_ids(block.items, "item id")
    events = _event_types(block, selected.path) if selected.weighted else None
    times = None
    if block.times is not None:
        times = parse_timestamps(block.times, columns.time_unit, columns.time_pattern)
        if block.offsets_ms is not None:
            times += parse_offsets(block.offsets_ms)
        unit.check(times)
    return _Rows(users, items, events, times, kept, undoes)


def _event_types(block: Block, path: Path) -> pa.DictionaryArray:
    if block.events is None:
        raise LogError(
            f"{path}: no event types for event_weights; name their column with "
            "--columns event=NAME, or leave event_weights out"
        )
    return encode_event_types(block.events)


def _is_one_of(events: pa.Array, names: Collection[str]) -> NDArray[np.bool_]:
    """(n,): the events of these types. A column that cannot hold types has none of them."""
    try:
        types = to_binary(events, "event")
    except BadColumnError:
        return np.zeros(len(events), dtype=bool)
    wanted = pa.array([name.encode() for name in names], pa.binary())
    matches: NDArray[np.bool_] = pc.is_in(types, value_set=wanted).to_numpy(zero_copy_only=False)
    return matches


def _selection(block: Block, selected: _Filter) -> NDArray[np.bool_]:
    """(n,): the records of a block to keep. Weights are checked even if none is required."""
    path, events, min_weight, found, *_ = selected
    kept = np.ones(len(block.users), dtype=bool)
    if block.clicked is not None:
        kept &= is_one(block.clicked)
    if block.weights is not None:
        weights = parse_weights(block.weights)
        if min_weight is not None:
            kept &= weights >= min_weight
    elif min_weight is not None:
        raise LogError(f"{path}: no weights to filter by; leave min_weight out")
    if events is not None:
        if block.events is None:
            raise LogError(f"{path}: no event types to filter by; leave events out")
        types = to_binary(block.events, "event")
        names = pc.unique(types).drop_null().to_pylist()
        found.update(name.decode("utf-8", "replace") for name in names)
        kept &= _is_one_of(types, events)
    return kept


def _without_old(path: Path, log: Interactions, limit: int | None) -> Interactions:
    """Each user's newest interactions, up to the limit; a warning of users who still have much of
    the log."""
    log = log.newest(limit)
    counts = np.diff(log.offsets)
    much = max(_HEAVY_SHARE * len(log), _HEAVY_MULTIPLE * float(np.median(counts)))
    heavy = int((counts > much).sum())
    if heavy:
        most = int(counts.max())
        warn(
            f"{path}: {heavy:,} of {len(counts):,} users have more than {_HEAVY_SHARE:.0%} of the "
            f"{len(log):,} interactions each, the first of them {most:,}, where the median user "
            f"has {np.median(counts):g}; robots? --max-user-interactions keeps the newest of each"
        )
    return log


def _empty_reason(records: int, events: Collection[str] | None, min_weight: float | None) -> str:
    if not records:
        return "no interactions; a header and interactions below it are needed"
    filters = [f"event {' or '.join(events)}"] if events is not None else []
    filters += [f"weight {min_weight:g} or more"] if min_weight is not None else []
    wanted = " and ".join(filters) or "been clicked, or an event type that enters histories"
    return f"none of {records:,} interactions has {wanted}; relax the filter, or see event_effects"

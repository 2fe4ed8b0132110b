"""Log files to Interactions, block by block."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.data.columns import Block
from training.data.errors import LogError
from training.data.format_detection import detect_format
from training.data.formats import FORMATS
from training.data.id_encoding import IdEncoder
from training.data.interactions import Interactions
from training.data.matching import check_event_types
from training.data.time_units import TimeUnit
from training.data.values import BadValueError, parse_timestamps, parse_weights, to_binary


def read_log(
    path: Path,
    format: str = "auto",
    events: Collection[str] | None = None,
    min_weight: float | None = None,
) -> Interactions:
    """The interactions of a file, or of a folder of Parquet files.

    format: a key of training.data.formats.FORMATS, or auto: detected by name and content.
    Times are numbers, kept as they are, or ISO 8601, which becomes Unix seconds; UTC where no zone
    is given; all are in one unit, and none is in the future. events: keep only interactions with
    one of these. min_weight: keep only those of at least this weight; ratings are weights, and an
    empty weight is 1. Ids are opaque strings of 1 to MAX_ID_BYTES bytes of UTF-8.
    Raises LogError, naming the line, if a value cannot be used; also if nothing is kept.
    """
    users, items = IdEncoder("user id"), IdEncoder("item id")
    times: list[NDArray[np.float64]] = []
    records, unit = 0, TimeUnit()
    found: set[bytes | None] = set()
    for block in FORMATS[detect_format(path, format)].blocks(path):
        try:
            mask = _selection(path, block, events, min_weight)
            users.add(block.users, mask)
            items.add(block.items, mask)
            moments = parse_timestamps(block.times)
            unit.check(moments)
            times.append(moments[mask])
        except BadValueError as error:
            raise LogError(f"{block.locate(error.record)}: {error}") from None
        records += len(mask)
        if events is not None and block.events is not None:
            found.update(pc.unique(to_binary(block.events, "event")).to_pylist())
    if not sum(map(len, times)):
        raise LogError(f"{path}: {_empty_reason(records, events, min_weight)}")
    names = [name.decode("utf-8", "replace") for name in found if name is not None]
    check_event_types(path, events or (), names, records, "interactions")
    user_codes, user_ids = users.codes_and_ids()
    item_codes, item_ids = items.codes_and_ids()
    return Interactions.from_rows(user_codes, item_codes, np.concatenate(times), user_ids, item_ids)


def _selection(
    path: Path, block: Block, events: Collection[str] | None, min_weight: float | None
) -> NDArray[np.bool_]:
    """(n,): the records of a block to keep. Weights are checked even if none is required."""
    mask = np.ones(len(block.times), dtype=bool)
    if block.weights is not None:
        weights = parse_weights(block.weights)
        if min_weight is not None:
            mask &= weights >= min_weight
    elif min_weight is not None:
        raise LogError(f"{path}: no weights to filter by; leave min_weight out")
    if events is not None:
        if block.events is None:
            raise LogError(f"{path}: no event types to filter by; leave events out")
        selected = pa.array([event.encode() for event in events], pa.binary())
        matches = pc.is_in(to_binary(block.events, "event"), value_set=selected)
        mask &= matches.to_numpy(zero_copy_only=False)
    return mask


def _empty_reason(records: int, events: Collection[str] | None, min_weight: float | None) -> str:
    if not records:
        return "no interactions; give a log with at least one"
    filters = [f"event {' or '.join(events)}"] if events is not None else []
    filters += [f"weight {min_weight:g} or more"] if min_weight is not None else []
    return f"none of {records:,} interactions has {' and '.join(filters)}; relax the filter"

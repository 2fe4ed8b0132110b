"""Log files to Interactions: block by block, every value checked, ids encoded as they come."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.data.format_detection import format_of
from training.data.formats import FORMATS, Block
from training.data.interactions import Interactions, LogError

MAX_ID_BYTES = 512

_LOOSE_IDS = 1 << 22
_ISO = r"^\d{4}-\d\d-\d\d"
_ZONED = r"[T ].*(Z|[+-]\d\d(:?\d\d)?)$"


class _BadValueError(Exception):
    """A value that cannot be used, why, and which record of its block it stands in."""

    def __init__(self, record: int, complaint: str) -> None:
        super().__init__(complaint)
        self.record = record


def read_log(
    path: Path,
    format: str = "auto",
    events: Collection[str] | None = None,
    min_weight: float | None = None,
) -> Interactions:
    """The interactions of a file, or of a folder of Parquet files.

    format: a key of training.formats.FORMATS, or auto: told by name and content.
    Times are numbers, kept as they are, or ISO 8601, which becomes Unix seconds; UTC where no zone
    is given. events: keep only interactions with one of these. min_weight: keep only those of at
    least this weight; ratings are weights, and a weight left empty is 1. Ids are opaque strings of
    1 to MAX_ID_BYTES bytes of UTF-8.
    Raises LogError, naming the line, if a value cannot be used; also if nothing is kept.
    """
    users, items = _Ids("user id"), _Ids("item id")
    times: list[NDArray[np.float64]] = []
    records = 0
    for block in FORMATS[format_of(path, format)].blocks(path):
        try:
            keep = _chosen(path, block, events, min_weight)
            users.add(block.users, keep)
            items.add(block.items, keep)
            times.append(_seconds(block.times)[keep])
        except _BadValueError as bad:
            raise LogError(f"{block.place(bad.record)}: {bad}") from None
        records += len(keep)
    if not sum(map(len, times)):
        raise LogError(f"{path}: {_nothing(records, events, min_weight)}")
    user_codes, user_ids = users.codes_and_ids()
    item_codes, item_ids = items.codes_and_ids()
    return Interactions.from_rows(user_codes, item_codes, np.concatenate(times), user_ids, item_ids)


def _nothing(records: int, events: Collection[str] | None, min_weight: float | None) -> str:
    if not records:
        return "no interactions; give a log with at least one"
    asked = [f"event {' or '.join(events)}"] if events is not None else []
    asked += [f"weight {min_weight:g} or more"] if min_weight is not None else []
    return f"none of {records:,} interactions has {' and '.join(asked)}; ask for less"


class _Ids:
    """A column of ids as codes into one table.

    Blocks come with tables of their own. These are joined whenever they hold more than the joint
    table, so the work is linear and what is held is the codes and a few times the distinct ids.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._chunks: list[pa.DictionaryArray] = []
        self._loose = self._joint = 0

    def add(self, values: pa.Array, keep: NDArray[np.bool_]) -> None:
        encoded = _encoded(values, self._what)
        self._chunks.append(encoded if keep.all() else encoded.filter(pa.array(keep)))
        self._loose += len(encoded.dictionary)
        if self._loose > max(self._joint, _LOOSE_IDS):
            self._join()

    def codes_and_ids(self) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
        """Codes (n,), and the str they stand for."""
        joined = self._join()
        ids = joined.dictionary.cast(pa.string()).to_numpy(zero_copy_only=False)
        return joined.indices.to_numpy(), ids

    def _join(self) -> pa.DictionaryArray:
        chunks = pa.chunked_array(self._chunks).unify_dictionaries().chunks
        codes = pa.concat_arrays([chunk.indices for chunk in chunks])
        table = chunks[0].dictionary
        joined = pa.DictionaryArray.from_arrays(codes, table)
        self._chunks, self._loose, self._joint = [joined], 0, len(table)
        return joined


def _encoded(values: pa.Array, what: str) -> pa.DictionaryArray:
    """The ids as codes into a table of binary, all of them fit to be ids."""
    encoded = _text(_present(values, what), what).dictionary_encode()
    table = encoded.dictionary
    try:
        table.cast(pa.string())
        sizes = pc.min_max(pc.binary_length(table)).as_py()
        fit = not len(table) or (sizes["min"] > 0 and sizes["max"] <= MAX_ID_BYTES)
    except pa.ArrowInvalid:
        fit = False
    if fit:
        return encoded
    complaints = [_complaint(value) for value in table.to_pylist()]
    unfit = np.array([complaint is not None for complaint in complaints])
    codes = encoded.indices.to_numpy()
    record = int(np.argmax(unfit[codes]))
    raise _BadValueError(
        record,
        f"{what} {complaints[codes[record]]}; it must be 1 to {MAX_ID_BYTES} bytes of UTF-8",
    )


def _complaint(value: bytes) -> str | None:
    if not value:
        return "is empty"
    if len(value) > MAX_ID_BYTES:
        return f"is {len(value):,} bytes long"
    try:
        value.decode()
    except UnicodeDecodeError:
        return f"{value!r} is not UTF-8"
    return None


def _present(values: pa.Array, what: str) -> pa.Array:
    if values.null_count:
        missing = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise _BadValueError(missing, f"no {what}; add it or remove the record")
    return values


def _text(values: pa.Array, what: str) -> pa.Array:
    """Binary. Integers are written out in decimal; other types have no one spelling."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_integer(values.type):
        values = values.cast(pa.string())
    try:
        return values.cast(pa.binary())
    except pa.ArrowNotImplementedError:
        raise _BadValueError(
            0, f"{what} is of type {values.type}; it must be text or an integer"
        ) from None


def _chosen(
    path: Path, block: Block, events: Collection[str] | None, min_weight: float | None
) -> NDArray[np.bool_]:
    """Which records of a block are wanted. Weights are checked whether or not they matter."""
    keep = np.ones(len(block.times), dtype=bool)
    if block.weights is not None:
        weights = _weights(block.weights)
        if min_weight is not None:
            keep &= weights >= min_weight
    elif min_weight is not None:
        raise LogError(f"{path}: no weights, so none can be asked for; leave min_weight out")
    if events is not None:
        if block.events is None:
            raise LogError(f"{path}: no event types, so none can be asked for; leave events out")
        asked = pa.array([event.encode() for event in events], pa.binary())
        found = pc.is_in(_text(block.events, "event"), value_set=asked)
        keep &= found.to_numpy(zero_copy_only=False)
    return keep


def _weights(values: pa.Array) -> NDArray[np.float64]:
    if not _is_number(values.type):
        values = _text(values, "weight")
        values = pc.if_else(pc.equal(values, b""), b"1", values)
    numbers = _cast(values, pa.float64(), "weight", "a number")
    weights: NDArray[np.float64] = numbers.fill_null(1.0).to_numpy()
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        record = int(np.argmax(bad))
        raise _BadValueError(
            record, f"weight {weights[record]:g}; it must be 0 or more, and finite; correct it"
        )
    return weights


def _is_number(kind: pa.DataType) -> bool:
    is_whole, is_part = pa.types.is_integer(kind), pa.types.is_floating(kind)
    return bool(is_whole or is_part or pa.types.is_decimal(kind))


def _seconds(values: pa.Array) -> NDArray[np.float64]:
    """Timestamps of any type as (n,) float64, all finite."""
    values = _present(values, "timestamp")
    if _is_number(values.type):
        seconds: NDArray[np.float64] = values.cast(pa.float64()).to_numpy()
    elif pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        seconds = _since_epoch(values)
    else:
        seconds = _parsed(_text(values, "timestamp"))
    unbounded = ~np.isfinite(seconds)
    if unbounded.any():
        record = int(np.argmax(unbounded))
        raise _BadValueError(record, f"timestamp {seconds[record]} is not finite; correct it")
    return seconds


def _since_epoch(values: pa.Array) -> NDArray[np.float64]:
    if not pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("s"))
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[values.type.unit]
    # Whole seconds apart: nanoseconds since 1970 have more digits than a float64.
    whole, rest = np.divmod(values.cast(pa.int64()).to_numpy(), per_second)
    seconds: NDArray[np.float64] = whole + rest / per_second
    return seconds


def _parsed(texts: pa.Array) -> NDArray[np.float64]:
    """Numbers and ISO 8601, with zones and without: logs that were put together have them all."""
    try:
        numbers: NDArray[np.float64] = texts.cast(pa.float64()).to_numpy()
        return numbers
    except pa.ArrowInvalid:
        pass
    texts = _cast(texts, pa.string(), "timestamp", "UTF-8")
    dated = pc.match_substring_regex(texts, _ISO).to_numpy(zero_copy_only=False)
    zoned = dated & pc.match_substring_regex(texts, _ZONED).to_numpy(zero_copy_only=False)
    seconds = np.empty(len(texts))
    for group, kind in (
        (~dated, pa.float64()),
        (zoned, pa.timestamp("ns", "UTC")),
        (dated & ~zoned, pa.timestamp("ns")),
    ):
        records = np.flatnonzero(group)
        try:
            parsed = _cast(texts.take(records), kind, "timestamp", "a number or an ISO 8601 time")
        except _BadValueError as bad:
            raise _BadValueError(int(records[bad.record]), str(bad)) from None
        seconds[group] = parsed.to_numpy() if kind == pa.float64() else _since_epoch(parsed)
    return seconds


def _cast(values: pa.Array, kind: pa.DataType, what: str, allowed: str) -> pa.Array:
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        pass
    for record, value in enumerate(values):
        try:
            value.cast(kind)
        except pa.ArrowInvalid:
            given = value.as_py()
            shown = given.decode(errors="replace") if isinstance(given, bytes) else given
            raise _BadValueError(
                record, f"{what} {shown[:80]!r} is not {allowed}; correct or remove the line"
            ) from None
    raise AssertionError("an array can be cast if all of its values can; this is a bug")

"""Raw columns to numbers and text: every value is checked, and a bad one is named."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_ISO_DATE = r"^\d{4}-\d\d-\d\d"
_WITH_ZONE = r"[T ].*(Z|[+-]\d\d(:?\d\d)?)$"


class BadValueError(Exception):
    """A value that cannot be used: why, and the index of its record in the block."""

    def __init__(self, record: int, reason: str) -> None:
        super().__init__(reason)
        self.record = record


def require_values(values: pa.Array, name: str) -> pa.Array:
    """The column itself. Raises BadValueError if a value is null."""
    if values.null_count:
        missing = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise BadValueError(missing, f"no {name}; add it or remove the record")
    return values


def to_binary(values: pa.Array, name: str) -> pa.Array:
    """Text as binary, integers in decimal. Raises BadValueError for other types: they have no one
    spelling."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_integer(values.type):
        values = values.cast(pa.string())
    try:
        return values.cast(pa.binary())
    except pa.ArrowNotImplementedError:
        raise BadValueError(
            0, f"{name} is of type {values.type}; it must be text or an integer"
        ) from None


def parse_weights(values: pa.Array) -> NDArray[np.float64]:
    """Weights of any type as (n,) float64, finite, of either sign; an empty one is 1."""
    if not _is_number(values.type):
        values = to_binary(values, "weight")
        values = pc.if_else(pc.equal(values, b""), b"1", values)
    numbers = _cast(values, pa.float64(), "weight", "a number")
    weights: NDArray[np.float64] = numbers.fill_null(1.0).to_numpy()
    bad = ~np.isfinite(weights)
    if bad.any():
        record = int(np.argmax(bad))
        raise BadValueError(record, f"weight {weights[record]:g}; it must be finite; correct it")
    return weights


def parse_timestamps(values: pa.Array) -> NDArray[np.float64]:
    """Timestamps of any type as (n,) float64, all finite.

    Numbers stay as they are; dates and ISO 8601 become Unix seconds.
    """
    values = require_values(values, "timestamp")
    if _is_number(values.type):
        seconds: NDArray[np.float64] = values.cast(pa.float64()).to_numpy()
    elif pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        seconds = _to_unix_seconds(values)
    else:
        seconds = _parse_time_texts(to_binary(values, "timestamp"))
    not_finite = ~np.isfinite(seconds)
    if not_finite.any():
        record = int(np.argmax(not_finite))
        raise BadValueError(record, f"timestamp {seconds[record]} is not finite; correct it")
    return seconds


def _is_number(arrow_type: pa.DataType) -> bool:
    is_integer, is_float = pa.types.is_integer(arrow_type), pa.types.is_floating(arrow_type)
    return bool(is_integer or is_float or pa.types.is_decimal(arrow_type))


def _to_unix_seconds(values: pa.Array) -> NDArray[np.float64]:
    if not pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("s"))
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[values.type.unit]
    # Whole seconds apart: nanoseconds since 1970 have more digits than a float64.
    whole, rest = np.divmod(values.cast(pa.int64()).to_numpy(), per_second)
    seconds: NDArray[np.float64] = whole + rest / per_second
    return seconds


def _parse_time_texts(texts: pa.Array) -> NDArray[np.float64]:
    """Numbers and ISO 8601, with zones and without; a merged log may have them all."""
    try:
        numbers: NDArray[np.float64] = texts.cast(pa.float64()).to_numpy()
        return numbers
    except pa.ArrowInvalid:
        pass
    texts = _cast(texts, pa.string(), "timestamp", "UTF-8")
    is_date = pc.match_substring_regex(texts, _ISO_DATE).to_numpy(zero_copy_only=False)
    zoned = is_date & pc.match_substring_regex(texts, _WITH_ZONE).to_numpy(zero_copy_only=False)
    seconds = np.empty(len(texts))
    for mask, arrow_type in (
        (~is_date, pa.float64()),
        (zoned, pa.timestamp("ns", "UTC")),
        (is_date & ~zoned, pa.timestamp("ns")),
    ):
        records = np.flatnonzero(mask)
        try:
            parsed = _cast(
                texts.take(records), arrow_type, "timestamp", "a number or an ISO 8601 time"
            )
        except BadValueError as error:
            raise BadValueError(int(records[error.record]), str(error)) from None
        is_float = arrow_type == pa.float64()
        seconds[mask] = parsed.to_numpy() if is_float else _to_unix_seconds(parsed)
    return seconds


def _cast(values: pa.Array, arrow_type: pa.DataType, name: str, expected: str) -> pa.Array:
    try:
        return values.cast(arrow_type)
    except pa.ArrowInvalid:
        pass
    for record, value in enumerate(values):
        try:
            value.cast(arrow_type)
        except pa.ArrowInvalid:
            given = value.as_py()
            shown = given.decode(errors="replace") if isinstance(given, bytes) else given
            raise BadValueError(
                record, f"{name} {shown[:80]!r} is not {expected}; correct or remove the line"
            ) from None
    raise AssertionError("an array can be cast if all of its values can; this is a bug")

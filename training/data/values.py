"""Raw columns to numbers and text: every value is checked, and a bad one is named."""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# Spellings of ISO 8601 that people and programs use, and their standard form.
_RESPELLINGS = (
    (r"^\s+|\s+$", ""),
    (r"^(\d{4})/(\d\d)/(\d\d)", r"\1-\2-\3"),
    (r"^(\d{4}-\d\d-\d\d[T ][^Z+]*?)\s*(?i:UTC|GMT|Z)$", r"\1Z"),
    (r"^(\d{4}-\d\d-\d\d[T ][\d:.]*)\s+([+-]\d\d)", r"\1\2"),
)
_ISO_DATE = r"^\d{4}-\d\d-\d\d"
_WITH_ZONE = r"[T ].*(Z|[+-]\d\d(:?\d\d)?)$"


class BadValueError(Exception):
    """Values of a block that cannot be used: the indices of their records, and why.

    In words it is the first of them.
    """

    def __init__(self, problems: Sequence[tuple[int, str]]) -> None:
        self.problems = problems
        self.record, reason = problems[0]
        super().__init__(reason)

    @classmethod
    def at(cls, records: NDArray[np.integer], reason: Callable[[int], str]) -> Self:
        """Of these records, in rising order."""
        return cls([(record, reason(record)) for record in records.tolist()])

    @classmethod
    def where(cls, bad: NDArray[np.bool_], reason: Callable[[int], str]) -> Self:
        """Of the records under the mask."""
        return cls.at(np.flatnonzero(bad), reason)


class BadColumnError(BadValueError):
    """A column that cannot be used, whatever its values."""


def require_values(values: pa.Array, name: str) -> pa.Array:
    """The column itself. Raises BadValueError if a value is null."""
    if values.null_count:
        missing = values.is_null().to_numpy(zero_copy_only=False)
        raise BadValueError.where(missing, lambda _: f"no {name}; add it or remove the record")
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
        problem = f"{name} is of type {values.type}; it must be text or an integer"
        raise BadColumnError([(0, problem)]) from None


def parse_weights(values: pa.Array) -> NDArray[np.float64]:
    """Weights of any type as (n,) float64, finite, of either sign; an empty one is 1."""
    if not _is_number(values.type):
        values = to_binary(values, "weight")
        values = pc.if_else(pc.equal(values, b""), b"1", values)
    numbers = _cast(values, pa.float64(), "weight", "a number")
    weights: NDArray[np.float64] = numbers.fill_null(1.0).to_numpy()
    bad = ~np.isfinite(weights)
    if bad.any():
        raise BadValueError.where(
            bad, lambda r: f"weight {weights[r]:g}; it must be finite; correct it"
        )
    return weights


def parse_timestamps(
    values: pa.Array, unit: str | None = None, pattern: str | None = None
) -> NDArray[np.float64]:
    """Timestamps of any type as (n,) float64, all finite.

    Dates and ISO 8601 become Unix seconds, and so do numbers of the unit; without one they stay as
    they are. pattern: of strptime, in UTC, for texts that are neither.
    """
    values, scale = require_values(values, "timestamp"), _PER_SECOND.get(unit or "", 1)
    if _is_number(values.type):
        seconds: NDArray[np.float64] = values.cast(pa.float64()).to_numpy() / scale
    elif pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        seconds = _to_unix_seconds(values)
    elif pattern is not None:
        seconds = _parse_pattern(to_binary(values, "timestamp"), pattern)
    else:
        seconds = _parse_time_texts(to_binary(values, "timestamp"), scale)
    not_finite = ~np.isfinite(seconds)
    if not_finite.any():
        raise BadValueError.where(
            not_finite, lambda r: f"timestamp {seconds[r]} is not finite; correct it"
        )
    return seconds


def parse_offsets(values: pa.Array) -> NDArray[np.float64]:
    """Milliseconds that are added to a date, as (n,) seconds; none is 0."""
    if not _is_number(values.type):
        values = to_binary(values, "offset")
        values = pc.if_else(pc.is_in(values, pa.array([b"", b"NA"])), b"0", values)
    milliseconds = _cast(values, pa.float64(), "offset", "a number of milliseconds")
    seconds: NDArray[np.float64] = milliseconds.fill_null(0.0).to_numpy() / 1000
    return seconds


def is_one(values: pa.Array) -> NDArray[np.bool_]:
    """(n,): whether a flag is set, in any usual spelling."""
    texts = values.cast(pa.string())
    ones = pc.is_in(texts, pa.array(["1", "1.0", "true", "True"]))
    flags: NDArray[np.bool_] = ones.to_numpy(zero_copy_only=False)
    return flags


def _is_number(arrow_type: pa.DataType) -> bool:
    is_integer, is_float = pa.types.is_integer(arrow_type), pa.types.is_floating(arrow_type)
    return bool(is_integer or is_float or pa.types.is_decimal(arrow_type))


def _to_unix_seconds(values: pa.Array) -> NDArray[np.float64]:
    if not pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("s"))
    per_second = _PER_SECOND[values.type.unit]
    # Whole seconds apart: nanoseconds since 1970 have more digits than a float64.
    whole, rest = np.divmod(values.cast(pa.int64()).to_numpy(), per_second)
    seconds: NDArray[np.float64] = whole + rest / per_second
    return seconds


def _parse_pattern(texts: pa.Array, pattern: str) -> NDArray[np.float64]:
    texts = _cast(texts, pa.string(), "timestamp", "UTF-8")
    times = pc.strptime(texts, format=pattern, unit="s", error_is_null=True)
    if times.null_count:
        raise BadValueError.where(
            times.is_null().to_numpy(zero_copy_only=False),
            lambda r: (
                f"timestamp {texts[r].as_py()[:80]!r} has not the form {pattern}; correct or "
                "remove the line"
            ),
        )
    return _to_unix_seconds(times)


def _parse_time_texts(texts: pa.Array, scale: int) -> NDArray[np.float64]:
    """Numbers and ISO 8601, with zones and without; a merged log may have them all.

    scale: the numbers are divided by it."""
    try:
        numbers: NDArray[np.float64] = texts.cast(pa.float64()).to_numpy() / scale
        return numbers
    except pa.ArrowInvalid:
        pass
    texts = _cast(texts, pa.string(), "timestamp", "UTF-8")
    for spelling, standard in _RESPELLINGS:
        texts = pc.replace_substring_regex(texts, spelling, standard)
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
            raise BadValueError([(int(records[r]), why) for r, why in error.problems]) from None
        is_float = arrow_type == pa.float64()
        seconds[mask] = parsed.to_numpy() / scale if is_float else _to_unix_seconds(parsed)
    return seconds


def _cast(values: pa.Array, arrow_type: pa.DataType, name: str, expected: str) -> pa.Array:
    try:
        return values.cast(arrow_type)
    except pa.ArrowInvalid:
        pass
    problems = []
    for record, value in enumerate(values):
        try:
            value.cast(arrow_type)
        except pa.ArrowInvalid:
            given = value.as_py()
            shown = given.decode(errors="replace") if isinstance(given, bytes) else given
            problem = f"{name} {shown[:80]!r} is not {expected}; correct or remove the line"
            problems.append((record, problem))
    if not problems:
        raise AssertionError("an array can be cast if all of its values can; this is a bug")
    raise BadValueError(problems)

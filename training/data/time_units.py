"""The unit of times, told by their size: a log has one, and none of its times is in the future.

Seconds since 1970 have 9 or 10 digits from 1973 on. Smaller numbers are of no unit: days, or
numbers in a sequence; they are in order, and that is all a fit needs.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from training.data.values import BadValueError

PER_SECOND = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
_UNITS = (None, *PER_SECOND)
_BOUNDS = (1e8, 1e11, 1e14, 1e17)  # the smallest of each unit
_TOLERANCE_S = 86_400.0  # a clock may be ahead, and a time zone be missing


def unit_of(moment: float) -> str | None:
    """None for a number that is no Unix time."""
    return _UNITS[int(_unit_numbers(np.array([moment]))[0])]


def to_seconds(moment: float) -> float:
    """Unix seconds; a number of no unit as it is."""
    return moment / PER_SECOND[unit_of(moment) or "seconds"]


def describe(moment: float) -> str:
    """Number, unit and date, in words."""
    unit = unit_of(moment)
    return f"{moment:.0f} is in {unit}" if unit else f"{moment:g} is not in Unix seconds"


class TimeUnit:
    """The unit of a log that is read block by block."""

    def __init__(self) -> None:
        self._number = 0
        self._first = 0.0  # the first time that has a unit
        self._latest_s = time.time() + _TOLERANCE_S

    def check(self, times: NDArray[np.float64]) -> None:
        """Raises BadValueError for the first time of another unit, or in the future."""
        numbers = _unit_numbers(times)
        with_unit = np.flatnonzero(numbers)
        if not len(with_unit):
            return
        if not self._number:
            self._number, self._first = int(numbers[with_unit[0]]), float(times[with_unit[0]])
        others = with_unit[numbers[with_unit] != self._number]
        if len(others):
            record = int(others[0])
            raise BadValueError(
                record,
                f"timestamp {describe(times[record])}, and {describe(self._first)}, before it; "
                "give all in one unit, best in Unix seconds",
            )
        per_second = PER_SECOND[_UNITS[self._number] or "seconds"]
        future = np.flatnonzero(times > self._latest_s * per_second)
        if len(future):
            record = int(future[0])
            raise BadValueError(
                record,
                f"timestamp {times[record]:.0f} is {_date(times[record])} in "
                f"{_UNITS[self._number]}, in the future; correct or remove the record, or give "
                "Unix seconds or ISO 8601 if it is something else",
            )


def _unit_numbers(times: NDArray[np.float64]) -> NDArray[np.intp]:
    """(n,): indices into _UNITS."""
    numbers: NDArray[np.intp] = np.searchsorted(_BOUNDS, times, side="right")
    return numbers


def _date(moment: float) -> str:
    try:
        return f"{datetime.fromtimestamp(to_seconds(moment), UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return "after the year 9999"


def typical(times: NDArray[np.float64]) -> float:
    """The time in the middle, which a few wrong ones do not move."""
    return float(times[np.argpartition(times, len(times) // 2)[len(times) // 2]])


def unit_names(times: NDArray[np.float64]) -> Sequence[str]:
    """The units that occur, seconds and none apart."""
    return [str(_UNITS[number]) for number in np.unique(_unit_numbers(times)) if number > 1]

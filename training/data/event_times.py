"""The times of a log's interactions, in what encoders read: codes of gaps, and ages."""

import numpy as np
from numpy.typing import NDArray

from index.encoders.time_gaps import gap_codes
from training.data.array_store import blocks
from training.data.packed_log import PackedLog
from training.data.time_units import PER_SECOND, unit_of


def units_per_second(times: NDArray[np.float64]) -> int | None:
    """None if these are not Unix times, but positions, or days."""
    unit = unit_of(float(times.max(initial=0.0)))
    return None if unit is None else PER_SECOND[unit]


def gaps_of(log: PackedLog) -> NDArray[np.uint8]:
    """(n,): the code of the time from each interaction to the next of its user; unknown of the
    last, and of all if the times are not Unix times."""
    codes = np.zeros(len(log.times), dtype=np.uint8)
    per_second = units_per_second(log.times)
    if per_second is None:
        return codes
    start = 0
    for (times,) in blocks(log.times):
        following = log.times[start + 1 : start + 1 + len(times)]
        seconds = (following - times[: len(following)]) / per_second
        codes[start : start + len(seconds)] = gap_codes(seconds)
        start += len(times)
    codes[log.offsets[1:][np.diff(log.offsets) > 0] - 1] = 0
    return codes


class Clock:
    """The ages of a log's interactions; none if its times are not Unix times."""

    def __init__(self, times: NDArray[np.float64]) -> None:
        self._times, self._per_second = times, units_per_second(times)

    def ages(self, start: int, end: int, moment: float | None = None) -> list[float] | None:
        """Seconds from each interaction to a moment in the log's unit; None is the time of the
        interaction after them, when the user came back."""
        if self._per_second is None:
            return None
        at = self._times[end] if moment is None else moment
        ages: list[float] = ((at - self._times[start:end]) / self._per_second).tolist()
        return ages

"""Units of times that do not go together in one log."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.data.errors import LogError

# From March 1973 on, the units of Unix times cannot be confused: each has its powers of ten.
UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
_STARTS = (1e8, 1e11, 1e14, 1e17)


class _Seen(NamedTuple):
    times: int
    locate: Callable[[], str]  # of the first
    value: float


def units_of(times: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n,): for each time the index of its unit; -1 for those before 1973, which may be any."""
    indices: NDArray[np.int64] = np.searchsorted(_STARTS, np.abs(times), side="right") - 1
    return indices


class UnitCheck:
    """Refuses a log with times in several units."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: dict[int, _Seen] = {}

    def add(self, times: NDArray[np.float64], locate: Callable[[int], str]) -> None:
        """locate: the file and line of a time, by its index."""
        units = units_of(times)
        for unit in np.unique(units[units >= 0]).tolist():
            first = int(np.argmax(units == unit))
            count = int((units == unit).sum())
            if unit in self._seen:
                self._seen[unit] = self._seen[unit]._replace(times=self._seen[unit].times + count)
            else:
                value = float(times[first])
                self._seen[unit] = _Seen(count, partial(locate, first), value)

    def check(self) -> None:
        """Raises LogError, naming the units, and a time of each."""
        if len(self._seen) < 2:
            return
        units = sorted(self._seen, key=lambda unit: -self._seen[unit].times)
        shown = "; ".join(
            f"{self._seen[unit].times:,} in {UNITS[unit]} ({self._seen[unit].locate()}: "
            f"{self._seen[unit].value:.0f})"
            for unit in units
        )
        raise LogError(
            f"{self._path}: times in several units: {shown}; write all in one unit, best in seconds"
        )

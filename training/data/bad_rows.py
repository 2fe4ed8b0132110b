"""Rows that cannot be used: the first is an error, unless some may be skipped."""

from collections.abc import Callable
from pathlib import Path

from training.data.errors import LogError
from training.data.matching import warn

_EXAMPLES = 3


class BadRows:
    """Counts the bad rows of a log and keeps the first as examples."""

    def __init__(self, path: Path, allowed: int = 0) -> None:
        """allowed: the number of bad rows that are skipped."""
        self.allowed = allowed
        self.count = 0
        self._path = path
        self._examples: list[str] = []

    def add(self, locate: Callable[[], str], reason: str) -> None:
        """Note a row that is left out. Raises LogError if there are more than allowed.

        locate: gives the file and line, in words.
        """
        self.count += 1
        if len(self._examples) < _EXAMPLES:
            self._examples.append(f"{locate()}: {reason}")
        if not self.allowed:
            raise LogError(self._examples[0])
        if self.count > self.allowed:
            raise LogError(
                f"{self._path}: more than {self.allowed:,} bad rows, which are skipped at most; "
                f"correct them or raise --skip-bad-rows; the first: {'; '.join(self._examples)}"
            )

    def report(self) -> None:
        """Warn of the rows that were skipped, if any."""
        if self.count:
            warn(
                f"{self._path}: {self.count:,} bad rows skipped, of {self.allowed:,} allowed; the "
                f"first: {'; '.join(self._examples)}"
            )

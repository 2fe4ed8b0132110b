"""Training examples: each item of a user but the first, to be predicted from those before it.

No Python per sample: an example is one integer, the index of its target in the log's flat array.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.retrieval.padding import pad_slices
from training.data.packed_log import PackedLog


class Examples(NamedTuple):
    """A batch: rows (B, L) histories, 0 = padding, newest last; targets (B,) the next item."""

    rows: NDArray[np.int64]
    targets: NDArray[np.int64]


class ExampleStream:
    """All examples of the users of a log, shuffled anew each epoch.

    Holds 4 bytes an example beside the log. The order of an epoch depends only on the seed and the
    epoch, so a run that was interrupted continues with the same batches. since: leaves out targets
    before this time, but not the histories before them.
    """

    def __init__(
        self,
        log: PackedLog,
        length: int,
        batch_size: int | None,
        seed: int,
        since: float = -math.inf,
    ) -> None:
        self._log, self._length = log, length
        self._seed = seed
        is_first = np.zeros(len(log.rows), dtype=bool)
        is_first[log.offsets[:-1][np.diff(log.offsets) > 0]] = True
        self._targets = np.flatnonzero(~is_first & (log.times >= since)).astype(
            np.int32 if len(is_first) < 2**31 else np.int64
        )
        # A small log needs small batches: with large ones it would train in too few steps.
        self._batch_size = batch_size or min(max(len(self._targets) // 100, 64), 1024)

    def __len__(self) -> int:
        """Examples in an epoch."""
        return len(self._targets)

    @property
    def nbytes(self) -> int:
        """Memory held beside the log."""
        return self._targets.nbytes

    @property
    def batches(self) -> int:
        """Batches in an epoch; the last may be smaller."""
        return -(-len(self) // self._batch_size)

    def epoch(self, number: int, first: int = 0) -> Iterator[Examples]:
        """The batches of an epoch, from batch `first` on."""
        order = np.random.default_rng([self._seed, number]).permutation(self._targets)
        for start in range(first * self._batch_size, len(order), self._batch_size):
            targets = order[start : start + self._batch_size]
            users = np.searchsorted(self._log.offsets, targets, side="right") - 1
            yield Examples(
                rows=pad_slices(self._log.rows, self._log.offsets[users], targets, self._length),
                targets=self._log.rows[targets].astype(np.int64),
            )

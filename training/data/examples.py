"""Training examples: each item of a user but the first, to be predicted from those before it.

No Python per sample: an example is one integer, the index of its target in the log's flat array.
Two streams give them: one history for each example, or one for all positions of a sequence.
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.retrieval.padding import pad_slices
from training.data.event_times import gaps_of
from training.data.packed_log import PackedLog

CPU = torch.device("cpu")
_POOLED_BATCHES = 32  # whose sequences are sorted by length together


class Examples(NamedTuple):
    """A batch: rows (B, L) histories, 0 = padding, newest last.

    targets (B,): the next item of each; or (B, L): the next item after each position, 0 = none.
    weights: as targets, what each counts in the loss, above 0 for each target; None if all count
    alike. gaps (B, L): codes of the time from each item to the next, and from the last to its
    target, see index.encoders.time_gaps; None unless they are wanted.
    """

    rows: Tensor
    targets: Tensor
    weights: Tensor | None = None
    gaps: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of items to be predicted."""
        return int(self.targets.count_nonzero())


class Stream(Protocol):
    """The examples of a log, in batches. The order of an epoch depends only on the seed and the
    epoch, so a run that was interrupted continues with the same batches."""

    def __len__(self) -> int:
        """Examples in an epoch."""
        ...

    @property
    def batches(self) -> int:
        """Batches in an epoch, at most."""
        ...

    def epoch(self, number: int, first: int = 0) -> Iterator[Examples]:
        """The batches of an epoch, from batch `first` on."""
        ...


class _DeviceLog:
    """Rows, weights and gaps of a log as tensors on the device that its batches are made on.

    On the CPU they share the log's memory.
    """

    def __init__(self, log: PackedLog, device: torch.device, with_gaps: bool) -> None:
        self.device = device
        self.rows = self.take(log.rows)
        self.offsets = self.take(log.offsets)
        self.weights = None if log.weights is None else self.take(log.weights)
        self.gaps = self.take(gaps_of(log)) if with_gaps else None

    def take(self, values: NDArray[np.generic]) -> Tensor:
        if not values.flags.writeable:  # torch has no tensors that are not
            values = values.copy()
        return torch.from_numpy(values).to(self.device)

    def histories(self, starts: Tensor, ends: Tensor, length: int) -> tuple[Tensor, Tensor | None]:
        """Rows and gaps (B, length) of the interactions from start to end."""
        rows = pad_slices(self.rows, starts, ends, length).long()
        gaps = self.gaps
        return rows, None if gaps is None else pad_slices(gaps, starts, ends, length).long()


class ExampleStream:
    """All examples of the users of a log, shuffled anew each epoch.

    Holds 4 bytes an example beside the log. The order of an epoch depends only on the seed and the
    epoch, so a run that was interrupted continues with the same batches. since: leaves out targets
    before this time, but not the histories before them. So are interactions of weight 0.
    """

    def __init__(
        self,
        log: PackedLog,
        length: int,
        batch_size: int | None,
        seed: int,
        since: float = -math.inf,
        device: torch.device = CPU,
        with_gaps: bool = False,
    ) -> None:
        self._log, self._length = _DeviceLog(log, device, with_gaps), length
        self._seed = seed
        self._targets = np.flatnonzero(_is_target(log, since)).astype(
            np.int32 if len(log.rows) < 2**31 else np.int64
        )
        self._batch_size = batch_size or _default_batch_size(len(self._targets))

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
        log, shuffled = self._log, self._log.take(order)
        for start in range(first * self._batch_size, len(order), self._batch_size):
            targets = shuffled[start : start + self._batch_size].long()
            users = torch.searchsorted(log.offsets, targets, right=True) - 1
            rows, gaps = log.histories(log.offsets[users], targets, self._length)
            yield Examples(
                rows=rows,
                targets=log.rows[targets].long(),
                weights=None if log.weights is None else log.weights[targets],
                gaps=gaps,
            )


class SequenceStream:
    """All examples of the users of a log, as sequences that are learnt at all their positions.

    A user's items are cut from the newest backwards into sequences of `length` targets, each with
    the item before each target. So an example has the items of its own sequence as history: at most
    `length`, and fewer near the start of a sequence. A batch has about batch_size examples, in
    sequences of about one length, so that little of it is padding.
    """

    def __init__(
        self,
        log: PackedLog,
        length: int,
        batch_size: int | None,
        seed: int,
        since: float = -math.inf,
        device: torch.device = CPU,
        with_gaps: bool = False,
    ) -> None:
        self._log, self._length, self._seed = _DeviceLog(log, device, with_gaps), length, seed
        is_target = _is_target(log, since)
        sizes = np.maximum(np.diff(log.offsets) - 1, 0)  # targets of each user
        pieces = -(-sizes // length)
        users = np.repeat(np.arange(len(sizes)), pieces)
        number = np.arange(len(users)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        ends = log.offsets[1:][users] - number * length
        starts = np.maximum(ends - length - 1, log.offsets[:-1][users])
        before = np.append(0, np.cumsum(is_target))
        counts = before[ends] - before[starts + 1]
        kept = counts > 0
        self._starts, self._ends, self._counts = starts[kept], ends[kept], counts[kept]
        self._is_target = self._log.take(is_target)
        self._batch_size = batch_size or _default_batch_size(len(self))

    def __len__(self) -> int:
        return int(self._counts.sum())

    @property
    def batches(self) -> int:
        return -(-len(self) // self._batch_size)

    def epoch(self, number: int, first: int = 0) -> Iterator[Examples]:
        random = np.random.default_rng([self._seed, number])
        order = random.permutation(len(self._counts))
        # Sorted by length within pools, not throughout: who is together changes with each epoch.
        pool = np.cumsum(self._counts[order]) // (_POOLED_BATCHES * self._batch_size)
        order = order[np.lexsort(((self._ends - self._starts)[order], pool))]
        batch = np.cumsum(self._counts[order]) // self._batch_size
        borders = np.flatnonzero(np.diff(batch)) + 1
        groups = np.split(order, borders)
        for index in random.permutation(len(groups))[first:]:
            yield self._examples(groups[index])

    def _examples(self, chosen: NDArray[np.int64]) -> Examples:
        log, length = self._log, int((self._ends[chosen] - self._starts[chosen]).max()) - 1
        starts, ends = log.take(self._starts[chosen]), log.take(self._ends[chosen])
        rows, gaps = log.histories(starts, ends - 1, length)
        targets = pad_slices(log.rows, starts + 1, ends, length).long()
        wanted = pad_slices(self._is_target, starts + 1, ends, length)
        weights = None
        if log.weights is not None:
            weights = pad_slices(log.weights, starts + 1, ends, length)
        return Examples(rows, targets * wanted, weights, gaps)


Positions = Literal["last", "all"]


def open_stream(
    positions: Positions,
    log: PackedLog,
    length: int,
    batch_size: int | None,
    seed: int,
    since: float = -math.inf,
    device: torch.device = CPU,
    with_gaps: bool = False,
) -> Stream:
    """The examples of a log with one history each, or with all positions of a sequence in one.

    length: of the histories. batch_size: None means a hundredth of an epoch, 64 to 1,024.
    since: leaves out targets before this time, but not the histories before them. device: where
    the batches are made. with_gaps: whether examples have gaps.
    """
    stream = SequenceStream if positions == "all" else ExampleStream
    return stream(log, length, batch_size, seed, since, device, with_gaps)


def _is_target(log: PackedLog, since: float) -> NDArray[np.bool_]:
    """(n,): interactions to be learnt, from a time on."""
    return log.is_target & (log.times >= since)


def _default_batch_size(examples: int) -> int:
    # A small log needs small batches: with large ones it would train in too few steps.
    return min(max(examples // 100, 64), 1024)

"""Evaluation protocols: what is trained on, and what validation and test cases consist of.

| protocol | trained on | history of a case | held out | ranked among |
|---|---|---|---|---|
| unseen-users | 80 % of the users | the first 80 % of another user's items | the rest | all items |
| leave-one-out | all but the last two of a user | all before the last | the last | all items |
| sampled-99 | all but the last two of a user | all before the last | the last | it and 99 others |
| temporal | the time before a boundary | a user's items before it | those after it | all items |

With exclude_seen, the default, the items of the history are not ranked, as in the service. A
held-out item that is among them is a miss. Interactions of weight 0 are in histories, but what is
held out of them is not to be found; a case of nothing else is left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.data.errors import LogError
from training.data.event_times import Clock
from training.data.packed_log import PackedLog
from training.data.splits import ProtocolName, hold_out, split_users

_NEGATIVES = 99


class EvaluationCase(NamedTuple):
    """A user to evaluate on: the history that the model sees, oldest first, and the held-out rows
    that it should retrieve, each once.

    candidates: the rows to be ranked; None is all of them. ages: seconds from each item of the
    history to the request; None if the log tells no times. The request is when the first held-out
    item was taken.
    """

    history: list[int]
    relevant: list[int]
    candidates: list[int] | None = None
    ages: list[float] | None = None

    def known(self, items: int) -> "EvaluationCase":
        """With the history's rows of a catalogue of so many items alone."""
        kept = [position for position, row in enumerate(self.history) if row <= items]
        if len(kept) == len(self.history):
            return self
        ages = None if self.ages is None else [self.ages[position] for position in kept]
        return self._replace(history=[self.history[position] for position in kept], ages=ages)


@dataclass(frozen=True)
class DataSplit:
    """A log divided for training, validation and test."""

    train: PackedLog
    validation: list[EvaluationCase]
    test: list[EvaluationCase]


def split_log(
    name: ProtocolName, log: PackedLog, items: int, test_fraction: float, seed: int
) -> DataSplit:
    """items: number in the catalogue. Raises LogError if a part would be empty."""
    split = _PROTOCOLS[name](log, items, test_fraction, seed)
    if not split.validation or not split.test or not split.train.is_target.any():
        kind = "" if log.weights is None else " of an event weight above 0"
        raise LogError(
            f"{name}: {len(log):,} users of {len(log.rows):,} interactions leave nothing to train "
            f"on, or nothing to evaluate on; give a log in which users have more interactions{kind}"
        )
    return split


def _unseen_users(log: PackedLog, items: int, test_fraction: float, seed: int) -> DataSplit:
    users = split_users(log.user_ids, test_fraction, seed)
    return DataSplit(
        log.take(users.train),
        _held_out_cases(log, users.validation),
        _held_out_cases(log, users.test),
    )


def _held_out_cases(log: PackedLog, users: NDArray[np.int64]) -> list[EvaluationCase]:
    held_out = hold_out(log, users)
    return make_cases(log, held_out.starts, held_out.cuts, held_out.ends)


def _leave_one_out(log: PackedLog, items: int, test_fraction: float, seed: int) -> DataSplit:
    """Validation holds out the second last. Users of fewer than 3 items are only trained on."""
    users = np.random.default_rng(seed).permutation(np.flatnonzero(np.diff(log.offsets) >= 3))
    starts, ends = log.offsets[:-1][users], log.offsets[1:][users]
    train_ends = log.offsets[1:].copy()
    train_ends[users] -= 2
    return DataSplit(
        log.truncate(train_ends),
        make_cases(log, starts, ends - 2, ends - 1),
        make_cases(log, starts, ends - 1, ends),
    )


def _sampled(log: PackedLog, items: int, test_fraction: float, seed: int) -> DataSplit:
    """Negatives are drawn uniformly from the items that the user never interacted with."""
    split = _leave_one_out(log, items, test_fraction, seed)
    random = np.random.default_rng([seed, _NEGATIVES])
    validation, test = (
        [case._replace(candidates=_draw_candidates(case, items, random)) for case in cases]
        for cases in (split.validation, split.test)
    )
    return DataSplit(split.train, validation, test)


def _draw_candidates(case: EvaluationCase, items: int, random: np.random.Generator) -> list[int]:
    excluded = {*case.history, *case.relevant}
    negatives: list[int] = []
    count = min(_NEGATIVES, items - sum(row <= items for row in excluded))
    while len(negatives) < count:
        row = int(random.integers(1, items + 1))
        if row not in excluded:
            excluded.add(row)
            negatives.append(row)
    return [*case.relevant, *negatives]


def _temporal(log: PackedLog, items: int, test_fraction: float, seed: int) -> DataSplit:
    """The last test_fraction of the log's time is for test, as much before it for validation."""
    validation_start, test_start = temporal_borders(log, test_fraction)
    train_ends, validation_ends = log.ends_before(validation_start), log.ends_before(test_start)
    users = np.random.default_rng(seed).permutation(len(log))
    starts, ends = log.offsets[:-1], log.offsets[1:]
    return DataSplit(
        log.truncate(train_ends),
        make_cases(log, starts[users], train_ends[users], validation_ends[users]),
        make_cases(log, starts[users], validation_ends[users], ends[users]),
    )


def temporal_borders(log: PackedLog, test_fraction: float) -> tuple[float, float]:
    """The times at which validation and test begin in the temporal protocol."""
    validation, test = np.quantile(log.times, [1 - 2 * test_fraction, 1 - test_fraction])
    return float(validation), float(test)


def make_cases(
    log: PackedLog,
    starts: NDArray[np.int64],
    cuts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> list[EvaluationCase]:
    """Those that have both a history and held-out items."""
    clock = Clock(log.times)
    cases = (
        EvaluationCase(
            log.rows[start:cut].tolist(), log.held_out(cut, end), ages=clock.ages(start, cut)
        )
        for start, cut, end in zip(starts, cuts, ends, strict=True)
        if start < cut < end
    )
    return [case for case in cases if case.relevant]


_PROTOCOLS: Mapping[ProtocolName, Callable[[PackedLog, int, float, int], DataSplit]] = {
    "unseen-users": _unseen_users,
    "leave-one-out": _leave_one_out,
    "sampled-99": _sampled,
    "temporal": _temporal,
}

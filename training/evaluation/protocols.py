"""What is trained on, and what is asked of the model at validation and test.

| protocol | trained on | a case shows | and asks for | ranked among |
|---|---|---|---|---|
| unseen-users | 80 % of the users | the first 80 % of another user's items | the rest | all items |
| leave-one-out | all but the last two of a user | all before the last | it | all but those |
| sampled-99 | all but the last two of a user | all before the last | it | it and 99 others |
| temporal | what came before a time | a user's items before it | those after it | all items |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.data.interactions import LogError, PackedLog
from training.data.splits import ProtocolName, held_out, unseen_users

_SAMPLED = 99


class Case(NamedTuple):
    """A user to evaluate on: what the model is shown, oldest first, and the rows it should find.

    among: the rows to be ranked; None is all of them.
    """

    history: list[int]
    relevant: list[int]
    among: list[int] | None = None


@dataclass(frozen=True)
class Task:
    """A log divided. exclude_seen: the history's items are left out of the ranking."""

    train: PackedLog
    validation: list[Case]
    test: list[Case]
    exclude_seen: bool = False


def divide(name: ProtocolName, log: PackedLog, items: int, test_fraction: float, seed: int) -> Task:
    """items: of the catalogue. Raises LogError if a part would be empty."""
    task = _PROTOCOLS[name](log, items, test_fraction, seed)
    if not task.validation or not task.test or np.diff(task.train.offsets).max(initial=0) < 2:
        raise LogError(
            f"{name}: {len(log):,} users of {len(log.rows):,} interactions leave nothing to train "
            "on, or nothing to be found; give a log in which users have more interactions"
        )
    return task


def _unseen_users(log: PackedLog, items: int, test_fraction: float, seed: int) -> Task:
    split = unseen_users(log.user_ids, test_fraction, seed)
    return Task(log.take(split.train), _held_out(log, split.validation), _held_out(log, split.test))


def _held_out(log: PackedLog, users: NDArray[np.int64]) -> list[Case]:
    found = held_out(log, users)
    return _cases(log, found.starts, found.cuts, found.ends)


def _leave_one_out(log: PackedLog, items: int, test_fraction: float, seed: int) -> Task:
    """Validation asks for the second last. Users of fewer than 3 items are only trained on."""
    users = np.random.default_rng(seed).permutation(np.flatnonzero(np.diff(log.offsets) >= 3))
    starts, ends = log.offsets[:-1][users], log.offsets[1:][users]
    cuts = log.offsets[1:].copy()
    cuts[users] -= 2
    return Task(
        log.until(cuts),
        _cases(log, starts, ends - 2, ends - 1),
        _cases(log, starts, ends - 1, ends),
        exclude_seen=True,
    )


def _sampled(log: PackedLog, items: int, test_fraction: float, seed: int) -> Task:
    """Negatives are drawn evenly from what the user never took."""
    task = _leave_one_out(log, items, test_fraction, seed)
    random = np.random.default_rng([seed, _SAMPLED])
    validation, test = (
        [case._replace(among=_among(case, items, random)) for case in part]
        for part in (task.validation, task.test)
    )
    return Task(task.train, validation, test)


def _among(case: Case, items: int, random: np.random.Generator) -> list[int]:
    taken = {*case.history, *case.relevant}
    negatives: list[int] = []
    while len(negatives) < min(_SAMPLED, items - len(taken)):
        row = int(random.integers(1, items + 1))
        if row not in taken:
            taken.add(row)
            negatives.append(row)
    return [*case.relevant, *negatives]


def _temporal(log: PackedLog, items: int, test_fraction: float, seed: int) -> Task:
    """The last test_fraction of the log's time is for test, as much before it for validation."""
    border, last = np.quantile(log.times, [1 - 2 * test_fraction, 1 - test_fraction])
    validated = log.places_before(border)
    tested = log.places_before(last)
    users = np.random.default_rng(seed).permutation(len(log))
    starts, ends = log.offsets[:-1], log.offsets[1:]
    return Task(
        log.until(validated),
        _cases(log, starts[users], validated[users], tested[users]),
        _cases(log, starts[users], tested[users], ends[users]),
    )


def _cases(
    log: PackedLog,
    starts: NDArray[np.int64],
    cuts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> list[Case]:
    """Those with something to show and something to ask for."""
    return [
        Case(log.rows[start:cut].tolist(), log.rows[cut:end].tolist())
        for start, cut, end in zip(starts, cuts, ends, strict=True)
        if start < cut < end
    ]


_PROTOCOLS: Mapping[ProtocolName, Callable[[PackedLog, int, float, int], Task]] = {
    "unseen-users": _unseen_users,
    "leave-one-out": _leave_one_out,
    "sampled-99": _sampled,
    "temporal": _temporal,
}

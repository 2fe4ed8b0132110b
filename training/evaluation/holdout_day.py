"""The held-out day: half of its users select the weights, the other half compares the releases."""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.data.event_times import Clock
from training.data.interactions import Interactions, offsets_of
from training.data.packed_log import PackedLog
from training.evaluation.protocols import DataSplit, EvaluationCase

MAX_DAY_CASES = 5000


class DayCase(NamedTuple):
    """A user: item ids of the history, oldest first, and the held-out items as indices into
    Interactions.item_ids. ages: as in EvaluationCase."""

    history: list[str]
    relevant: list[int]
    ages: list[float] | None = None


def split_day(log: PackedLog, since: float) -> DataSplit:
    """Train on the time before `since`, the start of the day; half of the day's users validate.

    The test part is the other half, in the rows of this catalogue. A user without earlier
    interactions has the first half of the day as history, so that new users count too.
    """
    train_ends, cuts = boundaries(log.offsets, log.times, since)
    in_test, order = _test_users(log.user_ids)
    clock = Clock(log.times)
    cases: tuple[list[EvaluationCase], list[EvaluationCase]] = ([], [])
    for user in order:
        start, cut, end = log.offsets[user], cuts[user], log.offsets[user + 1]
        if start < cut < end and (relevant := log.held_out(cut, end)):
            history = log.rows[start:cut].tolist()
            case = EvaluationCase(history, relevant, ages=clock.ages(start, cut))
            cases[int(in_test[user])].append(case)
    return DataSplit(log.truncate(train_ends), *cases)


def day_cases(log: Interactions, since: float, all_users: bool = False) -> list[DayCase]:
    """The test half of the day's users, or all, whatever their items: at most MAX_DAY_CASES, in
    random order.

    In ids, so that releases with different catalogues can be evaluated on the same cases.
    Interactions of weight 0 are in histories alone.
    """
    _, cuts = boundaries(log.offsets, log.times, since)
    in_test, order = _test_users(log.user_ids)
    starts, ends = log.offsets[:-1], log.offsets[1:]
    weights = log.weights
    counts = np.ones(len(log), dtype=bool) if weights is None else weights > 0
    counted, clock = offsets_of(counts), Clock(log.times)
    eligible = (in_test | all_users) & (starts < cuts) & (counted[cuts] < counted[ends])
    return [
        DayCase(
            log.item_ids[log.items[starts[user] : cuts[user]]].tolist(),
            np.unique(log.items[day][counts[day]]).tolist(),
            clock.ages(starts[user], cuts[user]),
        )
        for user in order[eligible[order]][:MAX_DAY_CASES]
        for day in (slice(cuts[user], ends[user]),)
    ]


def whole_histories(log: PackedLog, count: int) -> list[EvaluationCase]:
    """The histories of `count` random users up to now, with nothing held out: what an index will be
    queried with tomorrow."""
    _, order = _test_users(log.user_ids)
    clock, now = Clock(log.times), float(log.times.max())
    bounds = zip(log.offsets[order[:count]], log.offsets[order[:count] + 1], strict=True)
    return [
        EvaluationCase(log.rows[start:end].tolist(), [], ages=clock.ages(start, end, now))
        for start, end in bounds
    ]


def boundaries(
    offsets: NDArray[np.int64], times: NDArray[np.float64], since: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(U,) indices: where each user's day begins, and where the history of the case ends."""
    starts, sizes = offsets[:-1], np.diff(offsets)
    day_starts = starts + np.add.reduceat(times < since, starts, dtype=np.int64)
    return day_starts, np.where(day_starts == starts, starts + sizes // 2, day_starts)


def _test_users(user_ids: NDArray[np.object_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(U,): whether each user is in the test half; and a random order. Both depend only on ids."""
    digests = [hashlib.blake2b(user.encode(), digest_size=8).digest() for user in user_ids]
    in_test = np.array([digest[-1] & 1 for digest in digests], dtype=bool)
    return in_test, np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.int64)

"""The held-out day: who of its users choose the weights, who judge them, and by what."""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.data.interactions import Interactions, PackedLog
from training.evaluation.protocols import Case, Task

MAX_JUDGES = 5000


class Asked(NamedTuple):
    """A user: item ids shown, oldest first, and positions in Interactions.item_ids to be found."""

    history: list[str]
    relevant: list[int]


def divide_day(log: PackedLog, since: float) -> Task:
    """Train on what came before `since`; half of the users of the time after it validate.

    The task's test part is the other half, in this catalogue's rows. A user who was not there
    before shows half of what came after, so that a new user counts too.
    """
    before, shown = _cuts(log.offsets, log.times, since)
    judge, order = _judges(log.user_ids)
    cases: tuple[list[Case], list[Case]] = ([], [])
    for user in order:
        start, cut, end = log.offsets[user], shown[user], log.offsets[user + 1]
        if start < cut < end:
            case = Case(log.rows[start:cut].tolist(), log.rows[cut:end].tolist())
            cases[int(judge[user])].append(case)
    return Task(log.until(before), *cases)


def asked(log: Interactions, since: float, everybody: bool = False) -> list[Asked]:
    """The other half, or both, whatever items they took: at most MAX_JUDGES users, in no order.

    In ids, so that releases of different catalogues can be asked the same.
    """
    _, shown = _cuts(log.offsets, log.times, since)
    judge, order = _judges(log.user_ids)
    starts, ends = log.offsets[:-1], log.offsets[1:]
    chosen = order[((judge | everybody) & (starts < shown) & (shown < ends))[order]][:MAX_JUDGES]
    return [
        Asked(
            log.item_ids[log.items[starts[user] : shown[user]]].tolist(),
            np.unique(log.items[shown[user] : ends[user]]).tolist(),
        )
        for user in chosen
    ]


def histories(log: PackedLog, most: int) -> list[Case]:
    """What so many users have taken so far, with nothing to be found: what tomorrow will be asked
    of an index."""
    _, order = _judges(log.user_ids)
    bounds = zip(log.offsets[order[:most]], log.offsets[order[:most] + 1], strict=True)
    return [Case(log.rows[start:end].tolist(), []) for start, end in bounds]


def _cuts(
    offsets: NDArray[np.int64], times: NDArray[np.float64], since: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(U,) places: where each user's time after `since` begins, and where what is shown ends."""
    starts, sizes = offsets[:-1], np.diff(offsets)
    before = starts + np.add.reduceat(times < since, starts, dtype=np.int64)
    return before, np.where(before == starts, starts + sizes // 2, before)


def _judges(user_ids: NDArray[np.object_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(U,) whether each user judges, by the id alone; and an order that has nothing to say."""
    digests = [hashlib.blake2b(user.encode(), digest_size=8).digest() for user in user_ids]
    judge = np.array([digest[-1] & 1 for digest in digests], dtype=bool)
    return judge, np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.int64)

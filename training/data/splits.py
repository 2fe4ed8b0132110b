"""Who trains, who validates, who tests; and what of a history is shown to the model at a test."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.data.interactions import LogError, PackedLog

# Ways to split a log; training.evaluation.protocols implements them.
ProtocolName = Literal["unseen-users", "leave-one-out", "sampled-99", "temporal"]


@dataclass(frozen=True)
class Split:
    """Positions of users, int64, each user in one part; shuffled, so that the head of a part is a
    fair sample of it."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class HeldOut:
    """Cases to evaluate on, as stretches of a PackedLog's rows.

    Case c shows the model rows[starts[c]:cuts[c]], at least one item, and asks for the items of
    rows[cuts[c]:ends[c]], at least one; users[c] is the user's position. All (C,) int64.
    too_short: users left out because they have fewer than 2 interactions.
    """

    users: NDArray[np.int64]
    starts: NDArray[np.int64]
    cuts: NDArray[np.int64]
    ends: NDArray[np.int64]
    too_short: int


def unseen_users(user_ids: NDArray[np.object_], test_fraction: float = 0.1, seed: int = 0) -> Split:
    """test_fraction of the users for testing, as many for validation, the rest for training.

    Users are ordered by a hash of seed and id, so the same ids give the same parts whatever their
    order, and others joining or leaving move only those beside a border: test borders validation,
    never training. Raises LogError if a part would be empty.
    """
    if not 0 < test_fraction < 0.5:
        raise LogError(
            f"test fraction: {test_fraction}; above 0 and below 0.5, as validation takes as much"
        )
    held = round(test_fraction * len(user_ids))
    if held == 0 or len(user_ids) <= 2 * held:
        raise LogError(
            f"split: {len(user_ids):,} users cannot give a test part of {test_fraction:g}, one as "
            "large for validation and one for training; give a log of more users"
        )
    key = str(seed).encode()
    hashes = [hashlib.blake2b(user.encode(), digest_size=16, key=key).digest() for user in user_ids]
    order = np.array(sorted(range(len(hashes)), key=hashes.__getitem__), dtype=np.int64)
    return Split(test=order[:held], validation=order[held : 2 * held], train=order[2 * held :])


def held_out(log: PackedLog, users: NDArray[np.integer], history_share: float = 0.8) -> HeldOut:
    """Each user's first floor(history_share x n) items, at least 1, as history; the rest held out.

    history_share is above 0 and below 1.
    """
    if not 0 < history_share < 1:
        raise LogError(f"history share: {history_share}; above 0 and below 1")
    sizes = np.diff(log.offsets)[users]
    cases = np.asarray(users, dtype=np.int64)[sizes >= 2]
    sizes = sizes[sizes >= 2]
    starts = log.offsets[cases]
    # The share is meant as a decimal: 0.7 x 10 is 7, though in binary it falls just short.
    shown = np.floor(history_share * sizes + 1e-9).astype(np.int64).clip(1, sizes - 1)
    return HeldOut(cases, starts, starts + shown, starts + sizes, len(users) - len(cases))

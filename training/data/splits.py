"""Which users train, validate and test; and which part of a test history the model sees."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.data.errors import LogError
from training.data.packed_log import PackedLog

# Ways to split a log; training.evaluation.protocols implements them.
ProtocolName = Literal["unseen-users", "leave-one-out", "sampled-99", "temporal"]


_DIGEST = 16  # bytes


@dataclass(frozen=True)
class UserSplit:
    """Indices of users, int64, each user in one part; shuffled, so that the first of a part are a
    fair sample of it."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class HeldOut:
    """Evaluation cases as slices of a PackedLog's rows.

    The model sees rows[starts[c]:cuts[c]] of case c, at least one item; rows[cuts[c]:ends[c]], at
    least one, are held out. users[c] is the index of the user. All (C,) int64.
    too_short: users left out because they have fewer than 2 interactions.
    """

    users: NDArray[np.int64]
    starts: NDArray[np.int64]
    cuts: NDArray[np.int64]
    ends: NDArray[np.int64]
    too_short: int


def split_users(
    user_ids: NDArray[np.object_], test_fraction: float = 0.1, seed: int = 0
) -> UserSplit:
    """test_fraction of the users for testing, as many for validation, the rest for training.

    Users are ordered by a hash of seed and id. So the same ids give the same parts in any order,
    and users who join or leave move only those beside a boundary: test borders on validation, never
    on training. Raises LogError if a part would be empty.
    """
    if not 0 < test_fraction < 0.5:
        raise LogError(
            f"test fraction: {test_fraction}; above 0 and below 0.5, as validation takes as much"
        )
    count = round(test_fraction * len(user_ids))
    if count == 0 or len(user_ids) <= 2 * count:
        raise LogError(
            f"split: {len(user_ids):,} users cannot give a test part of {test_fraction:g}, one as "
            "large for validation and one for training; give a log of more users"
        )
    halves = np.frombuffer(_digests(user_ids, seed), ">u8").astype(np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    return UserSplit(
        test=order[:count], validation=order[count : 2 * count], train=order[2 * count :]
    )


def user_hashes(user_ids: NDArray[np.object_], seed: int) -> list[bytes]:
    """By which split_users orders users: first those for testing, last those for training."""
    digests = _digests(user_ids, seed)
    return [bytes(digests[at : at + _DIGEST]) for at in range(0, len(digests), _DIGEST)]


def _digests(user_ids: NDArray[np.object_], seed: int) -> bytearray:
    """Those of all users, one after the other."""
    key, digests = str(seed).encode(), bytearray()
    for user in user_ids:
        digests += hashlib.blake2b(user.encode(), digest_size=_DIGEST, key=key).digest()
    return digests


def hold_out(log: PackedLog, users: NDArray[np.integer], history_share: float = 0.8) -> HeldOut:
    """Each user's first floor(history_share x n) items, at least 1, as history; the rest held out.

    history_share is above 0 and below 1.
    """
    if not 0 < history_share < 1:
        raise LogError(f"history share: {history_share}; above 0 and below 1")
    sizes = np.diff(log.offsets)[users]
    kept = np.asarray(users, dtype=np.int64)[sizes >= 2]
    sizes = sizes[sizes >= 2]
    starts = log.offsets[kept]
    # The share is a decimal number: 0.7 x 10 is 7, though in binary it falls just short.
    lengths = np.floor(history_share * sizes + 1e-9).astype(np.int64).clip(1, sizes - 1)
    return HeldOut(kept, starts, starts + lengths, starts + sizes, len(users) - len(kept))

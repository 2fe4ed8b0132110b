"""The order of a user's interactions that have the same time: by chance, yet the same everywhere.

The order of a file cannot break such ties. A log that is sorted by item, with a day or a session as
its time, would put the same items last for every user: what a model then foresees is the file.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

_SEED = b"order of ties"


def tie_keys(
    user_hashes: NDArray[np.uint64], item_hashes: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """(n,): a seeded hash of user and item of each interaction, from those of their ids."""
    return _mix(user_hashes + _mix(item_hashes))


def id_hashes(ids: NDArray[np.object_]) -> NDArray[np.uint64]:
    """A seeded hash of each id."""
    digests = bytearray()
    for text in ids:
        digests += hashlib.blake2b(text.encode(), digest_size=8, key=_SEED).digest()
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64: every bit of a value changes every bit of the result."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

"""A log of interactions, sorted and filtered. Knows no file format.

log = training.data.readers.read_log(path)                file -> Interactions
items = training.data.item_metadata.read_items(path)      file -> title and category by item id
catalog, packed = prepare(log, items=items)               k-core -> Catalog, PackedLog
packed = pack(log, catalog)                               the same with an existing catalogue
split = training.data.splits.split_users(packed.user_ids, seed=0)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.data.errors import LogError
from training.data.event_weights import EventWeights
from training.data.matching import warn
from training.data.tie_order import tie_keys

_LITTLE = 0.5  # of the users or interactions; to keep less is reported


@dataclass(frozen=True)
class Interactions:
    """A log of n interactions of U users with I items, whatever the order of its file.

    items (n,) int32: indices into item_ids, grouped by user, each user's in order of time; a seeded
    hash of user and item breaks ties, not the order of the file. times (n,) float64: Unix seconds,
    or the unit of the log.
    offsets (U + 1,) int64: user u's interactions are offsets[u]:offsets[u + 1], at least one.
    user_ids (U,), item_ids (I,): str, in rising order, each with at least one interaction.
    duplicates: rows of the file left out because another has the same user, item and time; of them
    the one of the greatest weight stays. events: None if all interactions count alike.
    """

    items: NDArray[np.int32]
    times: NDArray[np.float64]
    offsets: NDArray[np.int64]
    user_ids: NDArray[np.object_]
    item_ids: NDArray[np.object_]
    duplicates: int = 0
    events: EventWeights | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def users(self) -> NDArray[np.int32]:
        """(n,): the user of each interaction, as an index into user_ids."""
        return np.repeat(np.arange(len(self.user_ids), dtype=np.int32), np.diff(self.offsets))

    @property
    def weights(self) -> NDArray[np.float32] | None:
        """(n,): of each interaction as a target; None if all count alike."""
        return None if self.events is None else self.events.weights

    @classmethod
    def from_rows(
        cls,
        users: NDArray[np.int32],
        items: NDArray[np.int32],
        times: NDArray[np.float64],
        user_ids: NDArray[np.object_],
        item_ids: NDArray[np.object_],
        events: EventWeights | None = None,
    ) -> "Interactions":
        """From rows in file order: users, items (n,) are indices into distinct ids, which may be
        in any order, and some of which may have no row."""
        users, user_ids = _in_id_order(users, user_ids)
        items, item_ids = _in_id_order(items, item_ids)
        keys: tuple[NDArray[Any], ...]
        keys = (tie_keys(users, items, user_ids, item_ids), times, users)
        if events is not None:
            keys = (-events.weights, *keys)  # of repeated rows the first stays
        order = np.lexsort(keys)
        users, items, times = users[order], items[order], times[order]
        repeated = _repeated_rows(users, items, times)
        if len(repeated):
            users, items = np.delete(users, repeated), np.delete(items, repeated)
            times, order = np.delete(times, repeated), np.delete(order, repeated)
        offsets = offsets_of(np.bincount(users, minlength=len(user_ids)))
        events = _taken(events, order)
        return cls(items, times, offsets, user_ids, item_ids, len(repeated), events)

    def newest(self, count: int | None) -> "Interactions":
        """Each user's newest interactions, at most `count`; None keeps all."""
        sizes = np.diff(self.offsets)
        if count is None or not len(sizes) or sizes.max() <= count:
            return self
        newer = np.repeat(self.offsets[1:], sizes) - np.arange(len(self))
        kept = newer <= count
        items, item_ids = _in_id_order(self.items[kept], self.item_ids)
        offsets = offsets_of(np.minimum(sizes, count))
        return Interactions(
            items,
            self.times[kept],
            offsets,
            self.user_ids,
            item_ids,
            self.duplicates,
            _taken(self.events, kept),
        )

    def k_core(self, min_user_interactions: int, min_item_interactions: int) -> "Interactions":
        """The largest part of the log in which each user has at least min_user_interactions and
        each item at least min_item_interactions.

        Raises LogError if it is empty.
        """
        users, items, kept = self.users, self.items, np.arange(len(self))
        while True:
            few_users = np.bincount(users, minlength=len(self.user_ids)) < min_user_interactions
            few_items = np.bincount(items, minlength=len(self.item_ids)) < min_item_interactions
            frequent = ~(few_users[users] | few_items[items])
            if frequent.all():
                break
            users, items, kept = users[frequent], items[frequent], kept[frequent]
        if not len(kept):
            raise LogError(
                f"log: of {len(self.user_ids):,} users and {len(self.item_ids):,} items none is "
                f"left when each user needs {min_user_interactions} interactions and each item "
                f"{min_item_interactions}; give a longer log or lower these limits"
            )
        users, user_ids = _in_id_order(users, self.user_ids)
        items, item_ids = _in_id_order(items, self.item_ids)
        if min(len(user_ids) / len(self.user_ids), len(kept) / len(self)) < _LITTLE:
            warn(
                f"log: {len(user_ids):,} of {len(self.user_ids):,} users, {len(item_ids):,} of "
                f"{len(self.item_ids):,} items and {len(kept):,} of {len(self):,} interactions are "
                f"left, as min_user_interactions is {min_user_interactions} and "
                f"min_item_interactions is {min_item_interactions}; lower them to keep more"
            )
        offsets = offsets_of(np.bincount(users))
        return Interactions(
            items,
            self.times[kept],
            offsets,
            user_ids,
            item_ids,
            self.duplicates,
            _taken(self.events, kept),
        )


def _taken(
    events: EventWeights | None, chosen: NDArray[np.integer] | NDArray[np.bool_]
) -> EventWeights | None:
    return None if events is None else events.take(chosen)


def offsets_of(sizes: NDArray[Any]) -> NDArray[np.int64]:
    """(n + 1,): the starts of n consecutive groups of these sizes, and the end of the last."""
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def _in_id_order(
    codes: NDArray[np.int32], ids: NDArray[np.object_]
) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
    """The same column, as indices into the ids that occur in it, sorted."""
    used = np.flatnonzero(np.bincount(codes, minlength=len(ids)))
    # By bytes of UTF-8, which is the order of Python's strings; arrow sorts them many times faster.
    used = used[pc.array_sort_indices(pa.array(ids[used], pa.string())).to_numpy()]
    new_codes = np.empty(len(ids), dtype=np.int32)
    new_codes[used] = np.arange(len(used), dtype=np.int32)
    return new_codes[codes], ids[used]


def _repeated_rows(
    users: NDArray[np.int32], items: NDArray[np.int32], times: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The indices of all but the first row of each user, item and time, in no order; the rows are
    sorted by user and time.

    Only rows that share user and time with a neighbour are compared: most logs have few.
    """
    starts_group = np.ones(len(users) + 1, dtype=bool)
    starts_group[1:-1] = (users[1:] != users[:-1]) | (times[1:] != times[:-1])
    tied = np.flatnonzero(~(starts_group[:-1] & starts_group[1:]))
    groups = np.cumsum(starts_group[:-1])[tied]
    order = np.lexsort((items[tied], groups))
    sorted_items, sorted_groups = items[tied][order], groups[order]
    repeated = (sorted_items[1:] == sorted_items[:-1]) & (sorted_groups[1:] == sorted_groups[:-1])
    indices: NDArray[np.int64] = tied[order[1:][repeated]]
    return indices

"""A log of interactions, sorted and filtered. Knows no file format.

log = training.data.readers.read_log(path)                file -> Interactions
items = training.data.item_metadata.read_items(path)      file -> title and category by item id
catalog, packed = prepare(log, items=items)               k-core -> Catalog, PackedLog
packed = pack(log, catalog)                               the same with an existing catalogue
split = training.data.splits.split_users(packed.user_ids, seed=0)
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.data.array_store import (
    BLOCK,
    MEMORY,
    ArrayStore,
    blocks,
    collect,
    compress,
    counts_of,
    forget,
)
from training.data.errors import LogError
from training.data.event_weights import EventWeights
from training.data.matching import warn
from training.data.tie_order import id_hashes, tie_keys

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
    the one of the greatest weight stays. events: None if all interactions count alike. store: where
    the arrays of n values are, and those that are made of them.
    """

    items: NDArray[np.int32]
    times: NDArray[np.float64]
    offsets: NDArray[np.int64]
    user_ids: NDArray[np.object_]
    item_ids: NDArray[np.object_]
    duplicates: int = 0
    events: EventWeights | None = None
    store: ArrayStore = MEMORY

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
        ties = tie_keys(id_hashes(user_ids)[users], id_hashes(item_ids)[items])
        order = order_of(users, items, times, ties, events)
        offsets = offsets_of(np.bincount(users[order], minlength=len(user_ids)))
        return cls(
            items[order],
            times[order],
            offsets,
            user_ids,
            item_ids,
            len(users) - len(order),
            None if events is None else events.take(order),
        )

    def newest(self, count: int | None) -> "Interactions":
        """Each user's newest interactions, at most `count`; None keeps all."""
        sizes = np.diff(self.offsets)
        if count is None or not len(sizes) or sizes.max() <= count:
            return self
        kept = np.empty(len(self), dtype=bool)
        item_counts = np.zeros(len(self.item_ids), dtype=np.int64)
        for index, users in self.blocks():
            newer = self.offsets[users + 1] - np.arange(index.start, index.stop)
            kept[index] = newer <= count
            item_counts += np.bincount(self.items[index][kept[index]], minlength=len(item_counts))
        return self._select(kept, np.minimum(sizes, count), item_counts)

    def k_core(self, min_user_interactions: int, min_item_interactions: int) -> "Interactions":
        """The largest part of the log in which each user has at least min_user_interactions and
        each item at least min_item_interactions.

        Raises LogError if it is empty.
        """
        kept = np.ones(len(self), dtype=bool)
        user_counts = np.diff(self.offsets)
        item_counts = counts_of(self.items, len(self.item_ids))
        while True:
            few_users = (user_counts > 0) & (user_counts < min_user_interactions)
            few_items = (item_counts > 0) & (item_counts < min_item_interactions)
            if not (few_users.any() or few_items.any()):
                break
            for index, users in self.blocks():
                items = self.items[index]
                dropped = kept[index] & (few_users[users] | few_items[items])
                kept[index] &= ~dropped
                item_counts -= np.bincount(items[dropped], minlength=len(item_counts))
                np.subtract.at(user_counts, users[dropped], 1)
        core = self._select(kept, user_counts, item_counts)
        if not len(core):
            raise LogError(
                f"log: of {len(self.user_ids):,} users and {len(self.item_ids):,} items none is "
                f"left when each user needs {min_user_interactions} interactions and each item "
                f"{min_item_interactions}; give a longer log or lower these limits"
            )
        if min(len(core.user_ids) / len(self.user_ids), len(core) / len(self)) < _LITTLE:
            warn(
                f"log: {len(core.user_ids):,} of {len(self.user_ids):,} users, "
                f"{len(core.item_ids):,} of {len(self.item_ids):,} items and {len(core):,} of "
                f"{len(self):,} interactions are left, as min_user_interactions is "
                f"{min_user_interactions} and min_item_interactions is {min_item_interactions}; "
                "lower them to keep more"
            )
        return core

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.int32]]]:
        """All interactions, block by block: where the block is, and the user of each in it."""
        for start in range(0, len(self), BLOCK):
            end = min(start + BLOCK, len(self))
            first = int(np.searchsorted(self.offsets, start, side="right")) - 1
            last = int(np.searchsorted(self.offsets, end, side="left"))
            sizes = np.diff(self.offsets[first : last + 1].clip(start, end))
            yield slice(start, end), np.repeat(np.arange(first, last, dtype=np.int32), sizes)
            forget(self.items)

    def _select(
        self,
        kept: NDArray[np.bool_],
        user_counts: NDArray[np.int64],
        item_counts: NDArray[np.int64],
    ) -> "Interactions":
        """The interactions under the mask, of which each user and each item has so many."""
        if kept.all():
            return self
        codes = np.cumsum(item_counts > 0, dtype=np.int32) - 1
        parts = (codes[items[mask]] for items, mask in blocks(self.items, kept))
        events = self.events
        if events is not None:
            events = events._replace(codes=compress(self.store, events.codes, kept))
        return replace(
            self,
            items=collect(self.store, np.int32, parts),
            times=compress(self.store, self.times, kept),
            offsets=offsets_of(user_counts[user_counts > 0]),
            user_ids=self.user_ids[user_counts > 0],
            item_ids=self.item_ids[item_counts > 0],
            events=events,
        )


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


def order_of(
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    times: NDArray[np.float64],
    ties: NDArray[np.uint64],
    events: EventWeights | None,
) -> NDArray[np.int64]:
    """The indices of rows in file order, put in order of user and time, without the rows that
    repeat another. ties (n,): breaks those of time."""
    keys: tuple[NDArray[Any], ...] = (ties, times, users)
    if events is not None:
        keys = (-events.weights, *keys)  # of repeated rows the first stays
    order: NDArray[np.int64] = np.lexsort(keys)
    return np.delete(order, _repeated_rows(users[order], items[order], times[order]))


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

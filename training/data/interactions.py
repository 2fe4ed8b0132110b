"""A log of interactions, sorted and filtered, and packed into catalogue rows. Knows no file format.

log = training.readers.read_log(path)            file -> Interactions
items = training.items.read_items(items_path)    file -> title and category by item id
catalog, packed = prepare(log, items=items)      k-core, Catalog, rows of it
packed = pack(log, catalog)                      the same against a catalogue that exists
parts = training.splits.unseen_users(packed.user_ids, seed=0)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index.retrieval.catalog import PADDING, Catalog


class LogError(ValueError):
    """The log, or the items file, cannot be used; one sentence says why and what to do."""


class ItemDetails(NamedTuple):
    """What a person may read about an item; None where not known."""

    title: str | None
    category: str | None


_UNKNOWN = ItemDetails(title=None, category=None)


@dataclass(frozen=True)
class Interactions:
    """A log of n interactions of U users with I items, whatever order its file had.

    items (n,) int32: positions in item_ids, user after user, each user's in order of time; the
    file's order breaks ties. times (n,) float64: Unix seconds, or what the log had instead.
    offsets (U + 1,) int64: user u's interactions are offsets[u]:offsets[u + 1], at least one.
    user_ids (U,), item_ids (I,): str, in rising order, each with at least one interaction.
    duplicates: rows of the file left out because user, item and time were those of another.
    """

    items: NDArray[np.int32]
    times: NDArray[np.float64]
    offsets: NDArray[np.int64]
    user_ids: NDArray[np.object_]
    item_ids: NDArray[np.object_]
    duplicates: int = 0

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def from_rows(
        cls,
        users: NDArray[np.int32],
        items: NDArray[np.int32],
        times: NDArray[np.float64],
        user_ids: NDArray[np.object_],
        item_ids: NDArray[np.object_],
    ) -> "Interactions":
        """Rows in file order: users, items (n,) are positions in tables of distinct ids, which
        may be in any order and may have ids without a row."""
        users, user_ids = _in_id_order(users, user_ids)
        items, item_ids = _in_id_order(items, item_ids)
        order = np.lexsort((times, users))  # stable: the file's order breaks ties
        users, items, times = users[order], items[order], times[order]
        again = _repeated(users, items, times)
        if len(again):
            users, items = np.delete(users, again), np.delete(items, again)
            times = np.delete(times, again)
        offsets = _offsets(np.bincount(users, minlength=len(user_ids)))
        return cls(items, times, offsets, user_ids, item_ids, duplicates=len(again))

    def k_core(self, min_user_interactions: int, min_item_interactions: int) -> "Interactions":
        """What is left when users with fewer than min_user_interactions, and items with fewer than
        min_item_interactions have been taken out, again and again, until none is there.

        Raises LogError if that is nothing.
        """
        users = np.repeat(np.arange(len(self.user_ids), dtype=np.int32), np.diff(self.offsets))
        items, kept = self.items, np.arange(len(self))
        while True:
            few_users = np.bincount(users, minlength=len(self.user_ids)) < min_user_interactions
            few_items = np.bincount(items, minlength=len(self.item_ids)) < min_item_interactions
            stay = ~(few_users[users] | few_items[items])
            if stay.all():
                break
            users, items, kept = users[stay], items[stay], kept[stay]
        if not len(kept):
            raise LogError(
                f"log: of {len(self.user_ids):,} users and {len(self.item_ids):,} items none is "
                f"left when each user needs {min_user_interactions} interactions and each item "
                f"{min_item_interactions}; "
                "give a longer log or lower these limits"
            )
        users, user_ids = _in_id_order(users, self.user_ids)
        items, item_ids = _in_id_order(items, self.item_ids)
        offsets = _offsets(np.bincount(users))
        return Interactions(items, self.times[kept], offsets, user_ids, item_ids, self.duplicates)


@dataclass(frozen=True)
class PackedLog:
    """Histories of U users as rows of a catalogue, in one flat array.

    rows (n,) int32, 1..N, user after user, oldest first; times (n,) float64;
    offsets (U + 1,) int64: user u's rows are rows[offsets[u]:offsets[u + 1]], at least one;
    user_ids (U,) str. unknown: interactions left out because the catalogue lacks the item.
    """

    rows: NDArray[np.int32]
    offsets: NDArray[np.int64]
    times: NDArray[np.float64]
    user_ids: NDArray[np.object_]
    unknown: int = 0

    def __len__(self) -> int:
        """Users, not interactions."""
        return len(self.user_ids)

    def take(self, users: NDArray[np.integer]) -> "PackedLog":
        """The log of the users at these positions, in this order."""
        sizes = np.diff(self.offsets)[users]
        offsets = _offsets(sizes)
        places = np.repeat(self.offsets[users] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return PackedLog(self.rows[places], offsets, self.times[places], self.user_ids[users])

    def until(self, ends: NDArray[np.int64]) -> "PackedLog":
        """Each user's history up to place ends[u] of the flat array; users with none are gone."""
        sizes = ends - self.offsets[:-1]
        kept = np.arange(len(self.rows)) < np.repeat(ends, np.diff(self.offsets))
        return PackedLog(
            self.rows[kept],
            _offsets(sizes[sizes > 0]),
            self.times[kept],
            self.user_ids[sizes > 0],
        )

    def places_before(self, time: float) -> NDArray[np.int64]:
        """(U,): for each user, the place of the first interaction that is not before `time`."""
        before = _offsets(self.times < time)
        return self.offsets[:-1] + before[self.offsets[1:]] - before[self.offsets[:-1]]


def prepare(
    interactions: Interactions,
    min_user_interactions: int = 5,
    min_item_interactions: int = 5,
    items: Mapping[str, ItemDetails] | None = None,
) -> tuple[Catalog, PackedLog]:
    """The catalogue of a log's k-core, most popular first, ties by id; and the core packed into it.

    items: title and category by item id; ids that it lacks have neither.
    Raises LogError if the core is empty.
    """
    core = interactions.k_core(min_user_interactions, min_item_interactions)
    popularity = np.bincount(core.items)
    order = np.argsort(-popularity, kind="stable")  # item_ids are in order: ties go by id
    ids: list[str] = core.item_ids[order].tolist()
    details = [(items or {}).get(item_id, _UNKNOWN) for item_id in ids]
    catalog = Catalog(
        ids=ids,
        popularity=popularity[order],
        categories=[item.category for item in details],
        titles=[item.title for item in details],
    )
    return catalog, pack(core, catalog)


def pack(interactions: Interactions, catalog: Catalog) -> PackedLog:
    """The log in the catalogue's rows. Unknown items are left out and counted, and users who have
    no other go with them.

    Raises LogError if nothing is left.
    """
    row_of = np.array(catalog.rows(interactions.item_ids), dtype=np.int32)
    rows = row_of[interactions.items]
    known = rows != PADDING
    if not known.any():
        raise LogError(
            f"log: none of its {len(row_of):,} items is among the catalogue's {len(catalog):,}; "
            "give a log with the ids that the catalogue was made from"
        )
    before = _offsets(known)[interactions.offsets]  # known interactions ahead of each user's first
    stay = np.diff(before) > 0
    return PackedLog(
        rows=rows[known],
        offsets=np.append(before[:-1][stay], before[-1]),
        times=interactions.times[known],
        user_ids=interactions.user_ids[stay],
        unknown=len(rows) - int(before[-1]),
    )


def _offsets(sizes: NDArray[Any]) -> NDArray[np.int64]:
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def _in_id_order(
    codes: NDArray[np.int32], ids: NDArray[np.object_]
) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
    """The same column over the table of the ids that occur in it, sorted."""
    used = np.flatnonzero(np.bincount(codes, minlength=len(ids)))
    # By bytes of UTF-8, which is the order of Python's strings; arrow sorts them many times faster.
    used = used[pc.array_sort_indices(pa.array(ids[used], pa.string())).to_numpy()]
    new_code = np.empty(len(ids), dtype=np.int32)
    new_code[used] = np.arange(len(used), dtype=np.int32)
    return new_code[codes], ids[used]


def _repeated(
    users: NDArray[np.int32], items: NDArray[np.int32], times: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The places of all but the first row of each user, item and time, in no order; the rows are
    sorted by user and time.

    Only rows that share user and time with a neighbour can be among them: most logs have few.
    """
    new_moment = np.ones(len(users) + 1, dtype=bool)
    new_moment[1:-1] = (users[1:] != users[:-1]) | (times[1:] != times[:-1])
    tied = np.flatnonzero(~(new_moment[:-1] & new_moment[1:]))
    moments = np.cumsum(new_moment[:-1])[tied]
    order = np.lexsort((items[tied], moments))
    sorted_items, sorted_moments = items[tied][order], moments[order]
    again = (sorted_items[1:] == sorted_items[:-1]) & (sorted_moments[1:] == sorted_moments[:-1])
    places: NDArray[np.int64] = tied[order[1:][again]]
    return places

"""Histories packed into catalogue rows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.retrieval.attributes import columns_of
from index.retrieval.catalog import PADDING, Catalog
from training.data.array_store import (
    MEMORY,
    ArrayStore,
    blocks,
    collect,
    compress,
    counts_of,
    forget,
)
from training.data.errors import LogError
from training.data.interactions import Interactions, offsets_of
from training.data.item_metadata import ItemDetails, check_items
from training.data.matching import check_matches

_BLOCK_USERS = 1 << 18  # whose interactions are taken at a time
T = TypeVar("T", bound=np.generic)
_NO_DETAILS = ItemDetails(title=None, category=None)


@dataclass(frozen=True)
class PackedLog:
    """Histories of U users as rows of a catalogue, in one flat array.

    rows (n,) int32, 1..N, grouped by user, oldest first; times (n,) float64;
    offsets (U + 1,) int64: user u's rows are rows[offsets[u]:offsets[u + 1]], at least one;
    user_ids (U,) str. oov_interactions: those left out because the catalogue lacks the item.
    weights (n,) float32: of each interaction as a target; None if all count alike.
    store: where the arrays of n values are, and those that are made of them.
    """

    rows: NDArray[np.int32]
    offsets: NDArray[np.int64]
    times: NDArray[np.float64]
    user_ids: NDArray[np.object_]
    oov_interactions: int = 0
    weights: NDArray[np.float32] | None = None
    store: ArrayStore = MEMORY

    def __len__(self) -> int:
        """Users, not interactions."""
        return len(self.user_ids)

    @property
    def is_target(self) -> NDArray[np.bool_]:
        """(n,): interactions to be learnt: not the first of their user, and not of weight 0."""
        is_target = np.ones(len(self.rows), dtype=bool)
        is_target[self.offsets[:-1][np.diff(self.offsets) > 0]] = False
        return is_target if self.weights is None else is_target & (self.weights > 0)

    def pairs(self, window: int) -> Iterator[tuple[int, NDArray[np.int32], NDArray[np.int32]]]:
        """For each distance d of 1..window: d, and of the items that are d positions apart in a
        history the later rows and the earlier ones."""
        users = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        for distance in range(1, window + 1):
            same = users[distance:] == users[:-distance]
            yield distance, self.rows[distance:][same], self.rows[:-distance][same]

    def held_out(self, start: int, end: int) -> list[int]:
        """The rows to be found among those from start to end, each once, in order of its first
        occurrence: those of weight 0 are not."""
        rows = self.rows[start:end]
        if self.weights is not None:
            rows = rows[self.weights[start:end] > 0]
        return list(dict.fromkeys(rows.tolist()))

    def take(self, users: NDArray[np.integer]) -> "PackedLog":
        """The log of the users at these indices, in this order."""
        sizes = np.diff(self.offsets)[users]
        return self._part(
            lambda values: collect(self.store, values.dtype.type, self._taken(values, users)),
            offsets_of(sizes),
            self.user_ids[users],
        )

    def _taken(self, values: NDArray[T], users: NDArray[np.integer]) -> Iterator[NDArray[T]]:
        """The values of these users, one user after the other, block by block."""
        for start in range(0, len(users), _BLOCK_USERS):
            block = users[start : start + _BLOCK_USERS]
            starts = self.offsets[block]
            ends = offsets_of(self.offsets[block + 1] - starts)
            yield values[np.repeat(starts - ends[:-1], np.diff(ends)) + np.arange(ends[-1])]
            forget(values)

    def truncate(self, ends: NDArray[np.int64]) -> "PackedLog":
        """Each user's history up to index ends[u] of the flat array; users without one are left
        out."""
        sizes = ends - self.offsets[:-1]
        kept = np.zeros(len(self.rows) + 1, dtype=np.int8)
        np.add.at(kept, self.offsets[:-1], 1)
        np.add.at(kept, ends, -1)
        mask = np.cumsum(kept[:-1], dtype=np.int8).view(bool)
        return self._part(
            lambda values: compress(self.store, values, mask),
            offsets_of(sizes[sizes > 0]),
            self.user_ids[sizes > 0],
        )

    def _part(
        self,
        select: Callable[[NDArray[Any]], NDArray[Any]],
        offsets: NDArray[np.int64],
        user_ids: NDArray[np.object_],
    ) -> "PackedLog":
        weights = None if self.weights is None else select(self.weights)
        rows, times = select(self.rows), select(self.times)
        return PackedLog(rows, offsets, times, user_ids, weights=weights, store=self.store)

    def ends_before(self, time: float) -> NDArray[np.int64]:
        """(U,): for each user, the index of the first interaction that is not before `time`."""
        earlier = [times < time for (times,) in blocks(self.times)]
        before = offsets_of(np.concatenate([np.empty(0, bool), *earlier]))
        return self.offsets[:-1] + before[self.offsets[1:]] - before[self.offsets[:-1]]


def prepare(
    interactions: Interactions,
    min_user_interactions: int = 5,
    min_item_interactions: int = 5,
    items: Mapping[str, ItemDetails] | None = None,
) -> tuple[Catalog, PackedLog]:
    """The catalogue of a log's k-core, most popular first, ties by id; and the core packed into it.

    items: title and category by item id; the others have neither.
    Raises LogError if the core is empty, UnmatchedError if `items` has none of its items.
    """
    core = interactions.k_core(min_user_interactions, min_item_interactions)
    popularity = counts_of(core.items, len(core.item_ids))
    order = np.argsort(-popularity, kind="stable")  # item_ids are sorted: ties go by id
    ids: list[str] = core.item_ids[order].tolist()
    if items:
        check_items(items, ids)
    details = [(items or {}).get(item_id, _NO_DETAILS) for item_id in ids]
    catalog = Catalog(
        ids=ids,
        popularity=popularity[order],
        categories=[item.category for item in details],
        titles=[item.title for item in details],
        other_categories=[item.other_categories for item in details]
        if any(item.other_categories for item in details)
        else (),
        attributes=columns_of([item.attributes for item in details]),
    )
    return catalog, pack(core, catalog)


def pack_all(interactions: Interactions, catalog: Catalog) -> PackedLog:
    """The log as rows of the catalogue, with rows above its N for the items that it lacks.

    Raises LogError if it lacks all of them.
    """
    item_rows = np.array(catalog.rows(interactions.item_ids), dtype=np.int32)
    unknown = item_rows == PADDING
    known = _require_known(interactions, ~unknown, catalog)
    item_rows[unknown] = len(catalog) + 1 + np.arange(np.count_nonzero(unknown))
    return PackedLog(
        _rows(interactions, item_rows),
        interactions.offsets,
        interactions.times,
        interactions.user_ids,
        len(known) - int(np.count_nonzero(known)),
        _weights(interactions),
        interactions.store,
    )


def _rows(interactions: Interactions, item_rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """The row of each interaction, from those of the items."""
    parts = (item_rows[items] for (items,) in blocks(interactions.items))
    return collect(interactions.store, np.int32, parts)


def _weights(interactions: Interactions) -> NDArray[np.float32] | None:
    events = interactions.events
    if events is None:
        return None
    parts = (events.by_type[codes] for (codes,) in blocks(events.codes))
    return collect(interactions.store, np.float32, parts)


def _require_known(
    interactions: Interactions, is_known: NDArray[np.bool_], catalog: Catalog
) -> NDArray[np.bool_]:
    """(n,): interactions with an item of the catalogue. Warns if they are few, and raises LogError
    if there are none.

    is_known (I,): the items that are in the catalogue.
    """
    items = len(is_known)
    known = np.concatenate([is_known[part] for (part,) in blocks(interactions.items)])
    if not known.any():
        raise LogError(
            f"log: none of its {items:,} items is among the catalogue's {len(catalog):,}; "
            "give a log with the ids that the catalogue was made from"
        )
    check_matches(
        "log",
        int(known.sum()),
        len(known),
        f"interactions are with one of the catalogue's {len(catalog):,} items",
        "the release does not know the others; is it the log that the catalogue was made from?",
    )
    return known


def pack(interactions: Interactions, catalog: Catalog) -> PackedLog:
    """The log as rows of the catalogue. Items that it lacks are left out and counted; users who
    have no other items are left out too.

    Raises LogError if nothing is left.
    """
    item_rows = np.array(catalog.rows(interactions.item_ids), dtype=np.int32)
    known = _require_known(interactions, item_rows != PADDING, catalog)
    if known.all():
        return pack_all(interactions, catalog)
    known_before = offsets_of(known)[interactions.offsets]  # before each user's first interaction
    kept = np.diff(known_before) > 0
    store, weights = interactions.store, _weights(interactions)
    return PackedLog(
        rows=compress(store, _rows(interactions, item_rows), known),
        offsets=np.append(known_before[:-1][kept], known_before[-1]),
        times=compress(store, interactions.times, known),
        user_ids=interactions.user_ids[kept],
        oov_interactions=len(known) - int(known_before[-1]),
        weights=None if weights is None else compress(store, weights, known),
        store=store,
    )

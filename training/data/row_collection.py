"""The rows that were read from a log, collected until they become Interactions."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.data.event_weights import EventWeights
from training.data.id_encoding import IdEncoder
from training.data.interactions import Interactions
from training.data.undone import undone


class RowCollection(Protocol):
    """Every implementation gives the same Interactions for the same rows."""

    def add(
        self,
        users: pa.DictionaryArray,
        items: pa.DictionaryArray,
        events: pa.DictionaryArray | None,
        times: NDArray[np.float64],
        kept: NDArray[np.bool_],
        undoes: NDArray[np.bool_] | None = None,
    ) -> None:
        """The rows of a block under a mask. events: None unless their types have weights. undoes:
        the rows that take another back."""
        ...

    def __len__(self) -> int: ...

    def to_interactions(self, weights: Mapping[str, float] | None) -> Interactions:
        """Of at least one row, without those that are taken back; the collection is used up.
        weights: of event types, if they have any."""
        ...


class MemoryRows:
    """In memory, ids as codes."""

    def __init__(self) -> None:
        self._users, self._items, self._types = IdEncoder(), IdEncoder(), IdEncoder()
        self._times: list[NDArray[np.float64]] = []
        self._undoes: list[NDArray[np.int64]] = []
        self._rows = 0

    def add(
        self,
        users: pa.DictionaryArray,
        items: pa.DictionaryArray,
        events: pa.DictionaryArray | None,
        times: NDArray[np.float64],
        kept: NDArray[np.bool_],
        undoes: NDArray[np.bool_] | None = None,
    ) -> None:
        if undoes is not None:
            self._undoes.append(np.flatnonzero(undoes[kept]) + self._rows)
        self._rows += int(np.count_nonzero(kept))
        columns = (self._users, users), (self._items, items), (self._types, events)
        for encoder, ids in columns:
            if ids is not None:
                encoder.add(ids, kept)
        self._times.append(times[kept])

    def __len__(self) -> int:
        return self._rows

    def to_interactions(self, weights: Mapping[str, float] | None) -> Interactions:
        events = None
        if weights is not None:
            events = EventWeights.of(*self._types.codes_and_ids(), weights)
        users, user_ids = self._users.codes_and_ids()
        items, item_ids = self._items.codes_and_ids()
        times = np.concatenate(self._times)
        undoing = np.concatenate([np.empty(0, dtype=np.int64), *self._undoes])
        if len(undoing):
            undoes = np.zeros(len(times), dtype=bool)
            undoes[undoing] = True
            kept = ~undone(users, items, times, undoes)
            users, items, times = users[kept], items[kept], times[kept]
            events = None if events is None else events.take(kept)
        return Interactions.from_rows(users, items, times, user_ids, item_ids, events)

"""The announced items that are offered beside a release, with what is known of each."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from index.release.reading import Release
from index.retrieval.delta import Delta
from index.retrieval.details import NOTHING, Details
from service.store.availability import ItemAvailability
from service.store.details_in_use import DetailsInUse


class _Chosen(NamedTuple):
    """Items, of a release and of those that users took, at a revision of the availability.

    known: what the item file says of them. revision, delta: with the shop's details of then.
    """

    release: Release
    taken: Delta
    availability: int
    items: Delta
    known: Mapping[str, Details]
    revision: int
    delta: Delta


class OfferedItems:
    """Items that users took and items with vectors from their words, as far as they are announced.

    max_items: the most that are offered; those that users took come first.
    """

    def __init__(
        self, availability: ItemAvailability, details: DetailsInUse, max_items: int
    ) -> None:
        self._availability = availability
        self._details = details
        self._max_items = max_items
        self._chosen: _Chosen | None = None

    def delta(self, release: Release, taken: Delta) -> Delta:
        """taken: those that users took. The same object until something changes."""
        chosen, revision = self._chosen, self._availability.revision
        if (
            chosen is None
            or chosen.release is not release
            or chosen.taken is not taken
            or chosen.availability != revision
        ):
            items = self._choose(release, taken)
            known = {} if release.new_items is None else release.new_items.details_of(items.ids)
            chosen = _Chosen(release, taken, revision, items, known, -1, items)
        if chosen.revision != self._details.revision:
            chosen = self._with_details(chosen)
        self._chosen = chosen
        return chosen.delta

    def _choose(self, release: Release, taken: Delta) -> Delta:
        announced = self._availability.announced
        items = taken.without({item for item in taken.ids if item not in announced})
        room = self._max_items - len(items)
        if release.new_items is None or room <= 0:
            return items
        others = release.new_items.delta.only(announced - {*items.ids}, room)
        return items.joined(others) if others else items

    def _with_details(self, chosen: _Chosen) -> _Chosen:
        """Most changes are of other items, and leave the delta as it is."""
        now = {item: self._details.of(item) for item in chosen.items.ids}
        details = {
            item: said.over(chosen.known[item]) if item in chosen.known else said
            for item, said in now.items()
            if said is not NOTHING or item in chosen.known
        }
        delta = chosen.delta
        if details != delta.details:
            delta = replace(chosen.items, details=details)
        return chosen._replace(revision=self._details.revision, delta=delta)

"""The announced items that are offered beside a release, with what is known of each."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from index.release.reading import Release
from index.retrieval.delta import Delta, with_words
from index.retrieval.details import NOTHING, Details
from service.store.availability import ItemAvailability
from service.store.details_in_use import DetailsInUse
from service.store.word_vectors import WordVectors


class _Source(NamedTuple):
    """What items are chosen from: those that users took, and those that the shop has described.

    release: its id. availability: its revision.
    """

    release: str
    taken: Delta
    described: Delta | None
    availability: int


class _Chosen(NamedTuple):
    """known: what the item file says of the items. delta: they, with the shop's details of a
    revision."""

    source: _Source
    items: Delta
    known: Mapping[str, Details]
    revision: int
    delta: Delta


class OfferedItems:
    """Items that users took and items with vectors from their words, as far as they are announced.

    max_items: the most that are offered; those that users took come first, then those that the
    shop has described since the release was made.
    """

    def __init__(
        self, availability: ItemAvailability, details: DetailsInUse, max_items: int
    ) -> None:
        self._availability = availability
        self._details = details
        self._max_items = max_items
        self._words = WordVectors(availability, details, max_items)
        self._chosen: _Chosen | None = None

    async def refresh(self, release: Release) -> None:
        """Give vectors to the items that the shop has described."""
        await self._words.refresh(release)

    def delta(self, release: Release, taken: Delta, users: Mapping[str, int]) -> Delta:
        """taken: those that users took, so many each. The same object until something changes."""
        described, revision = self._words.delta(release), self._availability.revision
        source, chosen = _Source(release.id, taken, described, revision), self._chosen
        if chosen is None or chosen.source != source:
            items = self._choose(release, taken, users, described)
            known = release.new_items.details_of(items.ids) if release.new_items else {}
            chosen = _Chosen(source, items, known, -1, items)
        if chosen.revision != self._details.revision:
            chosen = self._with_details(chosen)
        self._chosen = chosen
        return chosen.delta

    def _choose(
        self, release: Release, taken: Delta, users: Mapping[str, int], described: Delta | None
    ) -> Delta:
        announced, content = self._availability.announced, release.retriever.encoder.content
        items = taken.without({item for item in taken.ids if item not in announced})
        by_users = {*items.ids}
        for words in (described, release.new_items and release.new_items.delta):
            if words:
                items = with_words(items, users, words.only(by_users, len(by_users)), content)
                by_users.difference_update(words.ids)
                room = max(self._max_items - len(items), 0)
                items = items.joined(words.only(announced - {*items.ids}, room))
        return items

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

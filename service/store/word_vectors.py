"""Vectors of announced items from what the shop has said about them."""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from index.release.reading import Release
from index.retrieval.catalog import PADDING
from index.retrieval.delta import Delta
from index.retrieval.details import NOTHING, Details
from index.retrieval.text_model import TextModel
from service.store.availability import ItemAvailability
from service.store.details_in_use import DetailsInUse


class _Made(NamedTuple):
    """What was made for a release, at a revision of availability and details, and from what."""

    release: Release
    revisions: tuple[int, int]
    items: Mapping[str, Details]
    delta: Delta


class WordVectors:
    """max_items: the most that get a vector, the first by their ids."""

    def __init__(
        self, availability: ItemAvailability, details: DetailsInUse, max_items: int
    ) -> None:
        self._availability = availability
        self._details = details
        self._max_items = max_items
        self._made: _Made | None = None

    def delta(self, release: Release) -> Delta | None:
        """As of the last refresh, perhaps with items that are no longer announced; None if there
        are none."""
        made = self._made
        return made.delta if made is not None and made.release is release and made.delta else None

    async def refresh(self, release: Release) -> None:
        """Make the vectors anew if the release, what is announced or what is said has changed."""
        revisions = (self._availability.revision, self._details.revision)
        made = self._made if self._made and self._made.release is release else None
        if release.text_model is None or (made is not None and made.revisions == revisions):
            return
        said = self._details.among(self._availability.announced)
        self._made = await asyncio.to_thread(
            self._make, release, release.text_model, revisions, said, made
        )

    def _make(
        self,
        release: Release,
        model: TextModel,
        revisions: tuple[int, int],
        said: Mapping[str, Details],
        made: _Made | None,
    ) -> _Made:
        """Runs in a thread. said: of announced items. Most changes are of others: then what was
        made of these stays."""
        rows = zip(said, release.retriever.catalog.rows(said), strict=True)
        chosen = sorted(item for item, row in rows if row == PADDING)[: self._max_items]
        known = release.new_items.details_of(chosen) if release.new_items else {}
        items = {item: said[item].over(known.get(item, NOTHING)) for item in chosen}
        if made is not None and made.items == items:
            return made._replace(revisions=revisions)
        return _Made(release, revisions, items, model.delta(items))

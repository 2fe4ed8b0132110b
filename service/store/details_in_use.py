"""The releases in use with what the shop has said about items since they were made."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from index.release.reading import Release
from index.retrieval.catalog import PADDING
from index.retrieval.details import NOTHING, Details, Value
from index.retrieval.patches import patch_categories, patch_details
from index.retrieval.retriever import Retriever
from service.store.item_details import ItemDetails
from service.store.polling import poll_forever
from service.store.release_in_use import ReleaseInUse

_POLL_INTERVAL_S = 0.4

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Patched:
    """A release with details of one revision, and before that with the changed categories alone."""

    source: Release
    revision: int
    categories: Mapping[int, Sequence[str]]
    retriever: Retriever
    release: Release


class DetailsInUse:
    """The details as of this process's last poll. While Redis is down they stay as they are.

    revision: rises whenever any are changed. is_read: whether there was a poll; until then, what is
    known is not all. attribute_names: of all details, and some that were taken back since.
    """

    def __init__(self, stored: ItemDetails, *in_use: ReleaseInUse) -> None:
        self.stored = stored
        self._in_use = in_use
        self._poll_lock = asyncio.Lock()
        self._items: dict[str, Details] = {}
        self._last_change = 0.0
        self.revision = 0
        self.is_read = False
        self.attribute_names: set[str] = set()
        self._patched: list[_Patched] = []

    def __len__(self) -> int:
        return len(self._items)

    def of(self, item: str) -> Details:
        """The details of an item, empty if there are none."""
        return self._items.get(item, NOTHING)

    def renamed(self) -> list[str]:
        """The items of which the title or the categories are among the details."""
        return [
            item for item, it in [*self._items.items()] if it.title is not None or it.categories
        ]

    def among(self, items: Set[str]) -> dict[str, Details]:
        """The details of those of the items that have any."""
        return {item: self._items[item] for item in self._items.keys() & items}

    def release(self, release: Release) -> Release:
        """The release with these details, from the first poll after it was loaded on."""
        for patched in self._patched:
            if patched.source is release:
                return patched.release
        return release

    async def watch(self) -> None:
        """Poll for ever."""
        await poll_forever(self.poll, _POLL_INTERVAL_S)

    async def poll(self) -> None:
        """Apply the changes since the last poll, and to other releases all.

        Raises HistoryUnavailableError.
        """
        async with self._poll_lock:
            count, self._last_change = await self._read(self._items, self._last_change)
            if count < len(self._items):  # taken back, or lost
                items: dict[str, Details] = {}
                self.attribute_names = set()
                _, self._last_change = await self._read(items, 0.0)
                self._items = items
                self.revision += 1
            self.is_read = True
            releases = [each.release for each in self._in_use if self._items]
            patched = [await self._patch(release) for release in releases if release is not None]
            self._patched = patched

    async def _read(self, items: dict[str, Details], since: float) -> tuple[int, float]:
        """Put what has changed since then into items; the number of all, and the last change."""
        while True:
            count, changed = await self.stored.changed(since)
            if not changed:
                return count, since
            for item, details in (await self.stored.read_all([*changed])).items():
                items.pop(item, None)
                if details.names:
                    items[item] = details
                    self.attribute_names.update(details.attributes)
            since = max(changed.values())
            self.revision += 1

    async def _patch(self, release: Release) -> _Patched:
        previous = next((each for each in self._patched if each.source is release), None)
        if previous is not None and previous.revision == self.revision:
            return previous
        return await asyncio.to_thread(_patch, release, dict(self._items), self.revision, previous)


def _patch(
    source: Release, items: Mapping[str, Details], revision: int, previous: _Patched | None
) -> _Patched:
    catalog = source.retriever.catalog
    titles: dict[int, str] = {}
    categories: dict[int, Sequence[str]] = {}
    attributes: defaultdict[str, dict[int, Value]] = defaultdict(dict)
    for row, details in zip(catalog.rows(items), items.values(), strict=True):
        if row == PADDING:
            continue
        if details.title is not None:
            titles[row - 1] = details.title
        if details.categories:
            categories[row - 1] = details.categories
        for name, value in details.attributes.items():
            attributes[name][row - 1] = value
    if source.search.kind == "milvus":  # which has the categories of the release
        categories = {}
    if previous is not None and previous.categories == categories:
        retriever = previous.retriever
    elif categories:
        retriever = source.retriever.with_catalog(patch_categories(catalog, categories))
    else:
        retriever = source.retriever
    catalog = patch_details(retriever.catalog, titles, attributes)
    release = replace(source, retriever=retriever.with_catalog(catalog))
    return _Patched(source, revision, categories, retriever, release)

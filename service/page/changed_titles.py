"""Titles and categories as the shop has changed them since the release, for the page."""

from collections.abc import Sequence

from index.retrieval.catalog import PADDING, Catalog
from service.page.shown import View
from service.store.details_in_use import DetailsInUse

_Called = tuple[str | None, str | None]  # title and category


def now_called(
    rows: Sequence[int], catalog: Catalog, view: View, details: DetailsInUse
) -> list[_Called]:
    """Title and first category of each row in 1..N."""
    called = []
    for row, (title, category) in zip(rows, view.titles.of(rows), strict=True):
        changed = details.of(catalog.id(row))
        first = changed.categories[0] if changed.categories else category
        called.append((title if changed.title is None else changed.title, first))
    return called


def find(text: str, limit: int, catalog: Catalog, view: View, details: DetailsInUse) -> list[int]:
    """At most `limit` rows whose title and category now contain each word: the changed items first,
    then the others as the release's titles have them."""
    rows = [row for row in catalog.rows(details.renamed()) if row != PADDING]
    renamed = frozenset(rows)
    words = text.lower().split()
    found = [
        row
        for row, called in zip(rows, now_called(rows, catalog, view, details), strict=True)
        if _has_each(words, catalog.id(row), *called)
    ]
    others = view.titles.search(text, limit)
    return [*found, *(row for row in others if row not in renamed)][:limit]


def _has_each(words: Sequence[str], item_id: str, title: str | None, category: str | None) -> bool:
    line = f"{title or item_id} {category or ''}".lower()
    return all(word in line for word in words)

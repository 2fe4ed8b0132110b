"""Whether the attributes that a request names are any item's."""

from collections.abc import Iterator
from typing import Any

from index.release.reading import Release
from index.retrieval.details import TITLE
from service.http.schemas.recommend import RecommendRequest
from service.http.state import ServiceState


def note_unknown_attributes(
    state: ServiceState, body: RecommendRequest, answer: dict[str, Any]
) -> None:
    """Name in an answer what it was to include and no item has, in no release in use and by nothing
    that the shop has said since: a typo, or gone with a release, which must break no client.

    While what the shop has said was not read yet, all may be right.
    """
    if not body.include or not state.item_details.is_read:
        return
    in_use = [each.release for each in (state.live, state.canary) if each.release is not None]
    known = {TITLE}.union(state.item_details.attribute_names, *map(_names_in, in_use))
    if unknown := [name for name in body.include if name not in known]:
        answer["unknown_attributes"] = unknown


def _names_in(release: Release) -> Iterator[str]:
    """The attributes of its items, and of those that it has a vector for besides."""
    yield from release.retriever.catalog.attributes
    if release.new_items is not None and release.new_items.catalog is not None:
        yield from release.new_items.catalog.attributes

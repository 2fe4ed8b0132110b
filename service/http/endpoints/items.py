"""GET /items/{item_id} and GET /items/{item_id}/similar."""

import asyncio
from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from index.release.reading import Release
from index.retrieval.catalog import details_of
from index.retrieval.details import NOTHING, Details
from service.errors import UnknownItemError
from service.http.responses import json_response
from service.http.schemas.common import ItemInPath
from service.http.state import ServiceState, set_deadline, state_of
from service.settings import MAX_K

_MAX_ID_CHARACTERS = 40  # in an error message

Limit = Annotated[int, Query(ge=1, le=MAX_K, description="number of items", examples=[10])]


async def item(request: Request, item_id: ItemInPath) -> Response:
    """An item: its title, categories and attributes, and whether it is available."""
    state = state_of(request)
    state.engine.admit(set_deadline(request))
    release, availability = _release_of(state), state.availability
    changed = await state.item_details.stored.read(item_id)
    [row] = release.retriever.catalog.rows([item_id])
    is_withdrawn = item_id in availability.withdrawn
    if not (row or changed.names or is_withdrawn or item_id in availability.announced):
        raise _unknown(item_id, release, "one that PUT /items has changed")
    now = changed.over(_known(release, item_id))
    return json_response(
        {
            "item_id": item_id,
            "title": now.title,
            "categories": now.categories or [],
            "attributes": now.attributes,
            "available": not is_withdrawn,
            "in_release": bool(row),
            "changed": changed.names,
            "release": release.id,
        }
    )


async def similar(request: Request, item_id: ItemInPath, k: Limit = 50) -> Response:
    """The items of the release nearest to an item, as if it were a user's only interest."""
    state = state_of(request)
    state.engine.admit(set_deadline(request))
    release = _release_of(state)
    retriever = release.retriever
    withdrawn, delta = state.engine.withdrawn(release), state.cold_start_items.delta(release)
    if release.searches_elsewhere:
        result = await asyncio.to_thread(retriever.similar, item_id, k, withdrawn, delta)
    else:
        result = retriever.similar(item_id, k, withdrawn, delta)
    if result is None:
        raise _unknown(item_id, release, "a cold-start item")
    rows, scores, _ = result
    ids = map(retriever.catalog.id, rows.tolist())
    items = [
        {"item_id": similar_id, "score": score}
        for similar_id, score in zip(ids, scores.tolist(), strict=True)
    ]
    return json_response({"items": items, "release": release.id})


def _release_of(state: ServiceState) -> Release:
    """The release in use, of an admitted request."""
    release = state.live.release
    assert release is not None, "admitted without a release; this is a bug"
    return release


def _known(release: Release, item_id: str) -> Details:
    """What the release knows of an item, or else the item file that it was made with."""
    catalog = release.retriever.catalog
    [row] = catalog.rows([item_id])
    if row:
        return details_of(catalog, row)
    new = release.new_items.details_of([item_id]) if release.new_items else {}
    return new.get(item_id, NOTHING)


def _unknown(item_id: str, release: Release, otherwise: str) -> UnknownItemError:
    """otherwise: what else it could be."""
    return UnknownItemError(
        f"item_id: {item_id[:_MAX_ID_CHARACTERS]!r} is not an item of the release {release.id}, "
        f"nor {otherwise}; give the percent-encoded id of one that is"
    )

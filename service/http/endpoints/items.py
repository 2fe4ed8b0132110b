"""GET /items/{item_id}/similar."""

import asyncio
from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from service.errors import UnknownItemError
from service.http.responses import json_response
from service.http.schemas.common import ItemInPath
from service.http.state import set_deadline, state_of
from service.settings import MAX_K

_MAX_ID_CHARACTERS = 40  # in an error message

Limit = Annotated[int, Query(ge=1, le=MAX_K, description="number of items", examples=[10])]


async def similar(request: Request, item_id: ItemInPath, k: Limit = 50) -> Response:
    """The items of the release nearest to an item, as if it were a user's only interest."""
    state = state_of(request)
    state.engine.admit(set_deadline(request))
    release = state.live.release
    assert release is not None, "admitted without a release; this is a bug"
    retriever = release.retriever
    withdrawn, delta = state.engine.withdrawn(release), state.cold_start_items.delta(release)
    if release.searches_elsewhere:
        result = await asyncio.to_thread(retriever.similar, item_id, k, withdrawn, delta)
    else:
        result = retriever.similar(item_id, k, withdrawn, delta)
    if result is None:
        raise UnknownItemError(
            f"item_id: {item_id[:_MAX_ID_CHARACTERS]!r} is not an item of the release "
            f"{release.id}, nor a cold-start item; give the percent-encoded id of one that is"
        )
    rows, scores, _ = result
    ids = map(retriever.catalog.id, rows.tolist())
    items = [
        {"item_id": similar_id, "score": score}
        for similar_id, score in zip(ids, scores.tolist(), strict=True)
    ]
    return json_response({"items": items, "release": release.id})

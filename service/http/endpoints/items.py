"""GET /items/{item_id}/similar."""

from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from service.errors import UnknownItemError
from service.http.schemas.common import ItemInPath
from service.http.state import deadline_of, json_response, service_of
from service.settings import MAX_K

_SHOWN = 40

Wanted = Annotated[int, Query(ge=1, le=MAX_K, description="items wanted", examples=[10])]


async def similar(request: Request, item_id: ItemInPath, k: Wanted = 50) -> Response:
    """The items of the release nearest to one, as if it were a user's only interest."""
    service = service_of(request)
    service.engine.admit(deadline_of(request))
    release = service.live.release
    assert release is not None, "admitted without a release; this is a bug"
    retriever = release.retriever
    withdrawn, delta = service.engine.withdrawn(release), service.newcomers.delta(release)
    found = retriever.similar(item_id, k, withdrawn, delta)
    if found is None:
        raise UnknownItemError(
            f"item_id: {item_id[:_SHOWN]!r} is not an item of the release {release.id}, nor one of "
            "the new ones beside it; name one that is, percent-encoded"
        )
    rows, scores, _ = found
    ids = map(retriever.catalog.id, rows.tolist())
    items = [
        {"item_id": each, "score": score} for each, score in zip(ids, scores.tolist(), strict=True)
    ]
    return json_response({"items": items, "release": release.id})

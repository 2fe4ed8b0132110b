"""GET /items/{item_id}/similar."""

from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from service.errors import UnknownItemError
from service.parts import deadline_of, json_response, service_of
from service.schemas.common import K_LIMIT, ItemInPath

_SHOWN = 40

Wanted = Annotated[int, Query(ge=1, le=K_LIMIT, description="items wanted", examples=[10])]


async def similar(request: Request, item_id: ItemInPath, k: Wanted = 50) -> Response:
    """The items nearest to one, as if it were a user's only interest."""
    engine, live = service_of(request).engine, service_of(request).live
    engine.admit(deadline_of(request))
    release = live.release
    assert release is not None, "admitted without a release; this is a bug"
    retriever = release.retriever
    [row] = retriever.catalog.rows([item_id])
    if not row:
        raise UnknownItemError(
            f"item_id: {item_id[:_SHOWN]!r} is not an item of the release {release.id}; "
            "name one that is, percent-encoded"
        )
    rows, scores, _ = retriever.similar(row, k, engine.withdrawn(release))
    ids = map(retriever.catalog.id, rows.tolist())
    items = [
        {"item_id": each, "score": score} for each, score in zip(ids, scores.tolist(), strict=True)
    ]
    return json_response({"items": items, "release": release.id})

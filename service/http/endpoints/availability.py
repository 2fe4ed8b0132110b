"""PUT /items/{item_id}, PUT /items and GET /items."""

from typing import Annotated, Literal

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from service.http.responses import json_response
from service.http.schemas.availability import Availability, ItemAvailabilities
from service.http.schemas.common import ItemInPath
from service.http.state import state_of

OnlyWithdrawn = Annotated[
    Literal["false"],
    Query(description="false: the withdrawn items, which alone are listed", examples=["false"]),
]
After = Annotated[
    str, Query(max_length=512, description="only ids after this one", examples=["item-0"])
]
Limit = Annotated[int, Query(ge=1, le=10_000, description="most ids in one page", examples=[100])]


async def put(request: Request, body: Availability, item_id: ItemInPath) -> Response:
    """Withdraw an item from all responses, across releases, or make it available again.

    Items that the release does not know can be withdrawn too: the next release may contain them.
    Made available, they are announced: users' events may make them cold-start items.
    """
    [(changed, known)] = await state_of(request).availability.change([(item_id, body.available)])
    return json_response({"available": body.available, "changed": changed, "known": known})


async def put_all(request: Request, body: ItemAvailabilities) -> Response:
    """Withdraw or make available 1 to 1,000 items, as PUT /items/{item_id} does one."""
    pairs = [(item.item_id, item.available) for item in body.root]
    results = await state_of(request).availability.change(pairs)
    items = [
        {"item_id": item_id, "available": available, "changed": changed, "known": known}
        for (item_id, available), (changed, known) in zip(pairs, results, strict=True)
    ]
    return json_response({"items": items})


async def withdrawn(
    request: Request, available: OnlyWithdrawn, after: After = "", limit: Limit = 1000
) -> Response:
    """The withdrawn items, as this worker knows them, page by page."""
    items, following = await state_of(request).availability.page(after, limit)
    return json_response({"items": items, "next": following})

"""PUT /items/{item_id}, PUT /items, POST /items and GET /items."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from service.http.responses import json_response
from service.http.schemas.availability import ItemChange, ItemChanges
from service.http.schemas.common import ItemInPath
from service.http.state import ServiceState, state_of

OnlyWithdrawn = Annotated[
    Literal["false"],
    Query(description="false: the withdrawn items, which alone are listed", examples=["false"]),
]
After = Annotated[
    str, Query(max_length=512, description="only ids after this one", examples=["item-0"])
]
Cursor = Annotated[
    str,
    Query(
        max_length=512,
        description="the `cursor` of the page before; in place of `after`",
        examples=["item-0"],
    ),
]
Limit = Annotated[int, Query(ge=1, le=10_000, description="most ids in one page", examples=[100])]


async def put(request: Request, body: ItemChange, item_id: ItemInPath) -> Response:
    """Withdraw an item or make it available again, and change its title, categories and attributes.

    A withdrawn item is in no response, across releases. Items that the release does not know can be
    withdrawn too: the next release may contain them. Made available, they are announced: users'
    events may make them cold-start items.
    """
    [now] = await _change(state_of(request), [(item_id, body)])
    return json_response(now)


async def put_all(request: Request, body: ItemChanges) -> Response:
    """Change 1 to 1,000 items, as PUT /items/{item_id} does one."""
    changes = [(item.item_id, item) for item in body.root]
    items = await _change(state_of(request), changes)
    named = zip(changes, items, strict=True)
    return json_response({"items": [{"item_id": item_id, **now} for (item_id, _), now in named]})


async def post_all(request: Request, body: ItemChanges) -> Response:
    """Add or change 1 to 1,000 items: the same as PUT /items."""
    return await put_all(request, body)


async def withdrawn(
    request: Request,
    available: OnlyWithdrawn,
    after: After = "",
    limit: Limit = 1000,
    cursor: Cursor = "",
) -> Response:
    """The withdrawn items, as this worker knows them, page by page."""
    items, following = await state_of(request).availability.page(cursor or after, limit)
    return json_response({"items": items, "next": following, "cursor": following})


async def _change(
    state: ServiceState, changes: Sequence[tuple[str, ItemChange]]
) -> list[dict[str, bool]]:
    """Withdrawals first: a full Redis refuses details."""
    availability = state.availability
    available = [(item, change.available) for item, change in changes]
    results = iter(await availability.change([(i, now) for i, now in available if now is not None]))
    detailed = [(item, change.details) for item, change in changes if change.names_details]
    are_changed = iter(await state.item_details.stored.change(detailed))
    if detailed:
        await state.item_details.poll()
    answers = []
    for item, change in changes:
        now, changed, known = change.available, False, False
        if now is None:
            now, known = item not in availability.withdrawn, availability.knows(item)
        else:
            changed, known = next(results)
        if change.names_details:
            changed |= next(are_changed)
        answers.append({"available": now, "changed": changed, "known": known})
    return answers

"""PUT /items/{item_id}."""

from starlette.requests import Request
from starlette.responses import Response

from service.http.responses import json_response
from service.http.schemas.availability import Availability
from service.http.schemas.common import ItemInPath
from service.http.state import state_of


async def put(request: Request, body: Availability, item_id: ItemInPath) -> Response:
    """Withdraw an item from all responses, across releases, or make it available again.

    Items that the release does not know can be withdrawn too: the next release may contain them.
    """
    changed = await state_of(request).withdrawn_items.set(item_id, body.available)
    return json_response({"available": body.available, "changed": changed})

"""PUT /items/{item_id}."""

from starlette.requests import Request
from starlette.responses import Response

from service.http.schemas.availability import Availability
from service.http.schemas.common import ItemInPath
from service.http.state import json_response, service_of


async def put(request: Request, posted: Availability, item_id: ItemInPath) -> Response:
    """Withdraw an item from all answers, from now and through new releases, or end that.

    An item that the release does not know may be withdrawn as well: the next may know it.
    """
    changed = await service_of(request).withdrawn.set(item_id, posted.available)
    return json_response({"available": posted.available, "changed": changed})

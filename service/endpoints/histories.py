"""POST /events."""

from starlette.requests import Request
from starlette.responses import Response

from service.parts import json_response, service_of
from service.schemas.histories import Event, EventOrEvents


async def events(request: Request, posted: EventOrEvents) -> Response:
    """Add one event, or a list of them, to their users' histories and to the log."""
    batch = [posted] if isinstance(posted, Event) else posted
    await service_of(request).history.append(batch)
    return json_response({"accepted": len(batch)})

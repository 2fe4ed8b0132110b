"""POST /events, and GET and DELETE /users/{user_id}/history."""

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from service.http.schemas.common import UserInPath
from service.http.schemas.histories import EventOrEvents
from service.http.state import json_response, service_of
from service.store.events import Event


async def events(request: Request, posted: EventOrEvents) -> Response:
    """Add one event, or a list of them, to their users' histories and to the log."""
    batch = [posted] if isinstance(posted, Event) else posted
    service = service_of(request)
    appended = await service.history.append(batch)
    service.newcomers.observe_events(batch)
    return json_response(asdict(appended))


async def history(request: Request, user_id: UserInPath) -> Response:
    """The user's newest items; none for a user that nothing is known of."""
    items = await service_of(request).history.read(user_id)
    return json_response({"items": items, "count": len(items)})


async def forget(request: Request, user_id: UserInPath) -> Response:
    """Delete the user's history, and have the training leave it out; later events count again."""
    service = service_of(request)
    items = await service.history.forget(user_id)
    await service.newcomers.forget(user_id)
    return json_response({"forgotten": items})

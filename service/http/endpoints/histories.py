"""POST /events, and GET and DELETE /users/{user_id}/history."""

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from service.http.responses import json_response
from service.http.schemas.common import UserInPath
from service.http.schemas.histories import EventOrEvents
from service.http.state import state_of
from service.store.events import Event


async def events(request: Request, body: EventOrEvents) -> Response:
    """Add one event, or a list of events, to the event log, and to the users' histories if its
    kind is of those that do."""
    batch = [body] if isinstance(body, Event) else body
    state = state_of(request)
    appended = await state.histories.append(batch)
    kinds = state.settings.event_kinds
    taken = [event for event in batch if kinds.effect(event.event) == "history"]
    state.cold_start_items.observe_events(taken)
    state.quality.record_events(taken)
    return json_response(asdict(appended))


async def history(request: Request, user_id: UserInPath) -> Response:
    """The user's newest items; an empty list for an unknown user."""
    items = await state_of(request).histories.read(user_id)
    return json_response({"items": items, "count": len(items)})


async def forget(request: Request, user_id: UserInPath) -> Response:
    """Delete the user's history and exclude it from training. Later events count again."""
    state = state_of(request)
    count = await state.histories.forget(user_id)
    await state.cold_start_items.forget(user_id)
    await state.quality.forget(user_id)
    return json_response({"forgotten": count})

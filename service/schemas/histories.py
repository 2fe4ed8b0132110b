"""Events, and the histories that they make."""

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from service.schemas.common import EVENTS_LIMIT, Id, Input, Output


class Event(Input):
    """A user met an item."""

    user_id: Id
    item_id: Id
    timestamp: float | None = Field(
        None, ge=0, description="Unix seconds; without it, when the event arrived"
    )
    event: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        None, description="its type, such as view or purchase"
    )
    event_id: Id | None = Field(
        None, description="the client's own id, by which one sent twice is known in the log"
    )


Events = Annotated[list[Event], Field(min_length=1, max_length=EVENTS_LIMIT)]

# Told apart by their outer shape, so that a complaint is about the one that was meant.
EventOrEvents = Annotated[
    Annotated[Event, Tag("event")] | Annotated[Events, Tag("events")],
    Discriminator(lambda given: "events" if isinstance(given, list) else "event"),
]


class Accepted(Output):
    accepted: int = Field(description="events that are now in the history and the log")

"""POST /events, and GET and DELETE /users/{user_id}/history."""

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from service.http.schemas.common import EVENTS_LIMIT, Output, example
from service.store.events import Event

Events = Annotated[
    list[Event],
    Field(
        min_length=1,
        max_length=EVENTS_LIMIT,
        examples=[
            [{"user_id": "anna", "item_id": "item-1"}, {"user_id": "ben", "item_id": "item-2"}]
        ],
    ),
]

# Discriminated by the JSON type, so that an error is about the variant that was sent.
EventOrEvents = Annotated[
    Annotated[Event, Tag("event")] | Annotated[Events, Tag("events")],
    Discriminator(lambda body: "events" if isinstance(body, list) else "event"),
]


class Accepted(Output):
    """How many events were accepted, and why the others were not."""

    model_config = example(accepted=1, duplicates=0, outdated=0)

    accepted: int = Field(description="events added to the history and the event log")
    duplicates: int = Field(description="events skipped because their event_id was accepted before")
    outdated: int = Field(
        description="events skipped because their user's history was deleted after them"
    )


class History(Output):
    model_config = example(items=["item-1", "item-2"], count=2)

    items: list[str] = Field(description="ids of the newest items, newest last")
    count: int


class Forgotten(Output):
    model_config = example(forgotten=2)

    forgotten: int = Field(description="items deleted from the history")

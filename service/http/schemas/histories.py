"""Events, and the histories that they make."""

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

# Told apart by their outer shape, so that a complaint is about the one that was meant.
EventOrEvents = Annotated[
    Annotated[Event, Tag("event")] | Annotated[Events, Tag("events")],
    Discriminator(lambda given: "events" if isinstance(given, list) else "event"),
]


class Accepted(Output):
    """What became of the events."""

    model_config = example(accepted=1, duplicates=0, outdated=0)

    accepted: int = Field(description="events that are now in the history and the log")
    duplicates: int = Field(description="events that were there before, by their event_id")
    outdated: int = Field(
        description="events left out, as they happened before their user's history was deleted"
    )


class History(Output):
    model_config = example(items=["item-1", "item-2"], count=2)

    items: list[str] = Field(description="ids of the newest items, newest last")
    count: int


class Forgotten(Output):
    model_config = example(forgotten=2)

    forgotten: int = Field(description="items that were in the history")

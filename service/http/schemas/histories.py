"""Events, and the histories that they make."""

from typing import Annotated

from pydantic import AfterValidator, Discriminator, Field, Tag

from service.http.schemas.common import EVENTS_LIMIT, Id, Input, Output, example

FORGET = "forget"
_YEAR_10000 = 253_402_300_800  # which milliseconds of today are far beyond


def _not_forgetting(event: str) -> str:
    if event == FORGET:
        raise ValueError(
            f"`{FORGET}` stands in the log for a history that was deleted; choose another, or "
            "DELETE /users/{id}/history"
        )
    return event


Type = Annotated[
    str,
    Field(min_length=1, max_length=64, json_schema_extra={"not": {"const": FORGET}}),
    AfterValidator(_not_forgetting),
]


class Event(Input):
    """A user met an item."""

    model_config = example(
        user_id="anna", item_id="item-1", timestamp=1.8e9, event="view", event_id="visit-1"
    )

    user_id: Id
    item_id: Id
    timestamp: float | None = Field(
        None, ge=0, lt=_YEAR_10000, description="Unix seconds; without it, when the event arrived"
    )
    event: Type | None = Field(None, description="its type, such as view or purchase")
    event_id: Id | None = Field(
        None,
        description="the client's own id, apart for each user; an event that is sent again with it "
        "is not taken twice",
    )


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

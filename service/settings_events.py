"""The settings of events and histories, a part of the service's."""

from functools import cached_property

from pydantic import BaseModel, Field

from index.event_kinds import DEFAULT_EFFECTS, EventKinds
from service.settings_types import EventEffects


class EventSettings(BaseModel):
    event_effects: EventEffects = Field(
        DEFAULT_EFFECTS,
        description="what events of each kind do: history: the item joins it; exclude: it is only "
        "left out of answers; undo: its newest entry leaves the history; shown: it counts for "
        "frequency caps; none. Kinds that are not "
        "named keep these, and all others join the history",
    )
    keep_repeats: bool = Field(
        False,
        description="events on one item that follow one another are an entry of the history each, "
        "and not one for all",
    )
    history_max_length: int = Field(
        100, ge=1, le=1000, description="newest items stored and read for each user"
    )
    history_ttl_days: float = Field(
        180, gt=0, le=36_500, description="days after its last event until a history expires"
    )
    seen_max_items: int = Field(
        1000,
        ge=0,
        le=100_000,
        description="newest items kept for each user, by kind of event, to be left out of answers "
        "even when they have left the history; 0 keeps none",
    )
    shown_max_items: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="items of which impressions are kept for each user, about those shown last; "
        "others count as never shown",
    )
    shown_ttl_days: float = Field(
        30, gt=0, le=36_500, description="days after its last impression until a user's expire"
    )
    cursor_ttl_minutes: float = Field(
        60, gt=0, le=525_600, description="minutes after its last page until a cursor expires"
    )
    cursor_max_items: int = Field(
        5000, ge=1, le=100_000, description="items on all pages of a cursor, at most one page more"
    )
    allowed_lateness_hours: float = Field(
        720,
        ge=0,
        le=87_600,
        description="hours by which an event may be older than its user's newest and still join "
        "the history, in order of time; a later one is only logged for training",
    )
    event_stream_max_length: int = Field(
        1_000_000, ge=1, description="approximate number of newest events kept in Redis"
    )
    event_dedup_ttl_hours: float = Field(
        24,
        gt=0,
        le=87_600,
        description="hours for which a repeated event_id is ignored, and for which events from "
        "before a user's deletion are ignored",
    )

    @cached_property
    def event_kinds(self) -> EventKinds:
        return EventKinds.of(self.event_effects.split(","))

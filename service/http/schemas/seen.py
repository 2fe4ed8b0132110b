"""What a request says of the items that the user has met."""

import time
from typing import Annotated

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from service.http.schemas.common import Input, at_least_one
from service.store.events import Type
from service.store.seen_items import ALL_SEEN, SeenItems

_DAY_S = 86_400.0


class SeenFilter(Input):
    """Only those items of the user's events that are of these kinds, and as new as that."""

    model_config = ConfigDict(
        json_schema_extra=at_least_one({"kinds": {"type": "array"}, "days": {"type": "number"}})
    )

    kinds: Annotated[list[Type], Field(min_length=1, max_length=64)] | None = Field(
        None, description="kinds of events; without it, all that have an effect"
    )
    days: float | None = Field(
        None, gt=0, le=36_500, description="days since the newest such event; without it, all"
    )

    @model_validator(mode="after")
    def _says_which(self) -> "SeenFilter":
        if self.kinds is None and self.days is None:
            raise ValueError("neither kinds nor days; give one, or both, or true for all items")
        return self

    def wanted(self) -> SeenItems:
        kinds = None if self.kinds is None else frozenset(self.kinds)
        return SeenItems(kinds, time.time() - self.days * _DAY_S if self.days else 0.0)


# Discriminated by the JSON type, so that an error is about the variant that was sent.
ExcludeSeen = Annotated[
    Annotated[bool, Tag("flag")] | Annotated[SeenFilter, Tag("filter")],
    Discriminator(lambda given: "filter" if isinstance(given, dict | SeenFilter) else "flag"),
]


def seen_to_read(exclude: bool | SeenFilter) -> SeenItems | None:
    """What is to be read of a user who is stored."""
    if isinstance(exclude, SeenFilter):
        return exclude.wanted()
    return ALL_SEEN if exclude else None

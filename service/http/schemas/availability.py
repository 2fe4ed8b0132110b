"""PUT /items/{item_id}, PUT /items and GET /items: which items may be recommended."""

from typing import Annotated

from pydantic import Field, RootModel
from pydantic.config import ConfigDict

from service.http.schemas.common import Input, Output, example
from service.store.events import Id

ITEMS_LIMIT = 1000

_AVAILABLE = Field(
    description="false: within a second, no worker recommends the item; true: that ends, and an "
    "item that the release does not know is announced"
)
_KNOWN = Field(description="whether the release knows the item, or the shop had announced it")


class Availability(Input):
    model_config = example(available=False)

    available: bool = _AVAILABLE


class AvailabilityNow(Output):
    model_config = example(available=False, changed=True, known=True)

    available: bool
    changed: bool = Field(description="whether it was different before")
    known: bool = _KNOWN


class ItemAvailability(Input):
    item_id: Id
    available: bool = _AVAILABLE


class ItemAvailabilities(
    RootModel[Annotated[list[ItemAvailability], Field(min_length=1, max_length=ITEMS_LIMIT)]]
):
    """Applied in order."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        json_schema_extra={"examples": [[{"item_id": "item-1", "available": False}]]},
    )

    @property
    def entries(self) -> int:
        """What the rate limit counts."""
        return len(self.root)


class ItemAvailabilityNow(AvailabilityNow):
    model_config = example(item_id="item-1", available=False, changed=True, known=True)

    item_id: str


class AvailabilitiesNow(Output):
    """In the order of the request."""

    model_config = example(
        items=[{"item_id": "item-1", "available": False, "changed": True, "known": True}]
    )

    items: list[ItemAvailabilityNow]


class WithdrawnPage(Output):
    """Withdrawn items, in order of their ids."""

    model_config = example(items=["item-1"], next="item-1")

    items: list[str]
    next: str | None = Field(description="the `after` of the next page; null on the last")

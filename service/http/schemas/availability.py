"""PUT /items/{item_id}, PUT /items, POST /items and GET /items: what a shop says about items."""

from typing import Annotated, Any, Self

from pydantic import Field, RootModel, model_validator
from pydantic.config import ConfigDict, JsonDict

from service.http.schemas.attributes import AttributeScalar
from service.http.schemas.common import Input, Output, at_least_one, example
from service.store.details import DetailsChange
from service.store.events import Id, Text

ITEMS_LIMIT = 1000
_TEXTS_LIMIT = 64  # of a list
_ATTRIBUTES_LIMIT = 64

Title = Annotated[str, Field(min_length=1, max_length=1024)]
Categories = Annotated[list[Text], Field(min_length=1, max_length=_TEXTS_LIMIT)]
NewAttributes = Annotated[
    dict[Text, AttributeScalar | Annotated[list[Text], Field(max_length=_TEXTS_LIMIT)] | None],
    Field(max_length=_ATTRIBUTES_LIMIT),
]

_AVAILABLE = Field(
    None,
    description="false: within a second, no worker recommends the item; true: that ends, and an "
    "item that the release does not know is announced",
)
_KNOWN = Field(description="whether the release knows the item, or the shop had announced it")


_CHANGES: dict[str, JsonDict] = {
    "available": {"type": "boolean"},
    "title": {},
    "categories": {},
    "attributes": {},
}
_DETAILS = _CHANGES.keys() - {"available"}


class ItemChange(Input):
    """What is not named stays as it is."""

    model_config = ConfigDict(
        json_schema_extra={
            **at_least_one(_CHANGES),
            "examples": [
                {"available": False},
                {"title": "A winter's tale", "attributes": {"price": 9.5, "stock": True}},
            ],
        }
    )

    available: bool | None = _AVAILABLE
    title: Title | None = Field(None, description="null: as in the release")
    categories: Categories | None = Field(
        None, description="the most important first; null: as in the release"
    )
    attributes: NewAttributes | None = Field(
        None, description="those to change; of each, null: as in the release"
    )

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.available is None and self.model_fields_set.isdisjoint(_DETAILS):
            raise ValueError("changes nothing; give available, title, categories or attributes")
        return self

    @property
    def names_details(self) -> bool:
        """Whether it changes more than the availability."""
        return bool({"title", "categories"} & self.model_fields_set or self.attributes)

    @property
    def details(self) -> DetailsChange:
        given: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("title", "categories")
            if name in self.model_fields_set
        }
        return DetailsChange.of(given, self.attributes)


class AvailabilityNow(Output):
    model_config = example(available=False, changed=True, known=True)

    available: bool
    changed: bool = Field(description="whether anything was different before")
    known: bool = _KNOWN


class NamedItemChange(ItemChange):
    model_config = ConfigDict(
        json_schema_extra={
            **at_least_one(_CHANGES),
            "examples": [{"item_id": "item-1", "available": False}],
        }
    )

    item_id: Id


class ItemChanges(
    RootModel[Annotated[list[NamedItemChange], Field(min_length=1, max_length=ITEMS_LIMIT)]]
):
    """Applied in order."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        json_schema_extra={
            "examples": [
                [
                    {"item_id": "item-1", "available": False},
                    {"item_id": "item-2", "attributes": {"price": 12.5}},
                ]
            ]
        },
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

    model_config = example(items=["item-1"], next="item-1", cursor="item-1")

    items: list[str]
    next: str | None = Field(description="the `after` of the next page; null on the last")
    cursor: str | None = Field(
        None, description="the `cursor` of the next page, in place of `after`; null on the last"
    )

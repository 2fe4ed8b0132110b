"""Attributes of items, and filters by them."""

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from index.retrieval.attribute_filter import AttributeFilter, Condition, Scalar
from service.http.schemas.common import SEQUENCE_LIMIT, Input, at_least_one
from service.store.events import Text

_CONDITIONS_LIMIT = 32
_NAMES_LIMIT = 64

AttributeScalar = bool | float | Text
AttributeValue = bool | float | str | list[str]
AttributeNames = Annotated[list[Text], Field(max_length=_NAMES_LIMIT)]


_NUMBER: JsonDict = {"type": "number"}
_OPERATORS: dict[str, JsonDict] = {
    "in": {"type": "array"},
    "lt": _NUMBER,
    "lte": _NUMBER,
    "gt": _NUMBER,
    "gte": _NUMBER,
}


class Comparison(Input):
    """What the value must be: all that is given must hold."""

    model_config = ConfigDict(serialize_by_alias=True, json_schema_extra=at_least_one(_OPERATORS))

    any_of: list[AttributeScalar] | None = Field(
        None,
        alias="in",
        min_length=1,
        max_length=SEQUENCE_LIMIT,
        description="it is one of these, or, as a list, has one of them",
    )
    lt: float | None = Field(None, description="it is a number below this")
    lte: float | None = Field(None, description="it is a number, at most this")
    gt: float | None = Field(None, description="it is a number above this")
    gte: float | None = Field(None, description="it is a number, at least this")

    @model_validator(mode="after")
    def _compares(self) -> Self:
        if {self.lt, self.lte, self.gt, self.gte} == {None} and self.any_of is None:
            raise ValueError("compares with nothing; give in, lt, lte, gt or gte")
        return self

    def condition(self, name: str) -> Condition:
        any_of = None if self.any_of is None else tuple(self.any_of)
        return Condition(name, any_of, self.lt, self.lte, self.gt, self.gte)


Conditions = Annotated[
    dict[Text, AttributeScalar | Comparison],
    Field(min_length=1, max_length=_CONDITIONS_LIMIT),
]


class ItemFilter(Input):
    """Conditions on attributes, each `{"name": value}` or `{"name": {"lte": 50}}`.

    An item without the attribute meets no condition on it.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    all: list[Conditions] = Field(
        [], max_length=_CONDITIONS_LIMIT, description="only items for which each of these holds"
    )
    none: list[Conditions] = Field(
        [],
        alias="not",
        max_length=_CONDITIONS_LIMIT,
        description="no items for which one of these holds",
    )

    def compiled(self) -> AttributeFilter:
        return AttributeFilter([*map(_group, self.all)], [*map(_group, self.none)])


def _group(conditions: dict[str, Scalar | Comparison]) -> list[Condition]:
    return [
        wanted.condition(name)
        if isinstance(wanted, Comparison)
        else Condition(name, any_of=(wanted,))
        for name, wanted in conditions.items()
    ]

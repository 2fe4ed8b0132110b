"""Events: what a user did with an item, and the word that marks a deletion in the log."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

ID_LIMIT_BYTES = 512
FORGET = "forget"
_YEAR_10000 = 253_402_300_800  # which milliseconds of today are far beyond


def check_id_length(text: str) -> str:
    if not text.isascii() and (size := len(text.encode())) > ID_LIMIT_BYTES:
        raise ValueError(f"an id of {size} bytes in UTF-8; at most {ID_LIMIT_BYTES} are allowed")
    return text


Text = Annotated[str, Field(min_length=1, max_length=ID_LIMIT_BYTES)]
Id = Annotated[Text, AfterValidator(check_id_length)]


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


_EXAMPLE: JsonDict = {
    "user_id": "anna",
    "item_id": "item-1",
    "timestamp": 1.8e9,
    "event": "view",
    "event_id": "visit-1",
}


class Event(BaseModel):
    """A user met an item."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        json_schema_extra={"examples": [_EXAMPLE]},
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

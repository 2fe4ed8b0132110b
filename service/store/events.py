"""Events: what a user did with an item, and the word that marks a deletion in the log."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

ID_LIMIT_BYTES = 512
FORGET = "forget"
_YEAR_10000 = 253_402_300_800  # from there on a number counts milliseconds: from 1978 on
_MAX_INTEGER = 10**ID_LIMIT_BYTES


def check_id_length(text: str) -> str:
    if not text.isascii() and (size := len(text.encode())) > ID_LIMIT_BYTES:
        raise ValueError(f"an id of {size} bytes in UTF-8; at most {ID_LIMIT_BYTES} are allowed")
    return text


def integer_as_text(value: Any) -> Any:
    """An integer as the text of its digits; everything else as it is, to be validated."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_integer and abs(value) < _MAX_INTEGER else value


Text = Annotated[str, Field(min_length=1, max_length=ID_LIMIT_BYTES)]
TextOrInteger = Annotated[Text | int, Field(description="an integer stands for its digits")]
IdInPath = Annotated[Text, AfterValidator(check_id_length)]
Id = Annotated[IdInPath, BeforeValidator(integer_as_text, json_schema_input_type=TextOrInteger)]


def _as_seconds(value: Any) -> Any:
    """Unix seconds of an ISO 8601 time or of milliseconds; everything else as it is."""
    if isinstance(value, str):
        return _seconds_of(value)
    if isinstance(value, float | int) and value >= _YEAR_10000:
        if value < _YEAR_10000 * 1000:
            return value / 1000
        raise ValueError("neither Unix seconds nor milliseconds; after the year 9999 in both")
    return value


def _seconds_of(text: str) -> float:
    try:
        if not _ISO_TIME.fullmatch(text):
            raise ValueError
        time = datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError(
            "not a time; allowed are Unix seconds, Unix milliseconds, and ISO 8601 such as "
            "2026-01-31T12:00:00Z"
        ) from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d.*", re.ASCII)
Time = Annotated[
    float,
    Field(ge=0, lt=_YEAR_10000),
    BeforeValidator(
        _as_seconds,
        json_schema_input_type=Annotated[float, Field(ge=0, lt=_YEAR_10000 * 1000)] | datetime,
    ),
]


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
    timestamp: Time | None = Field(
        None,
        description="Unix seconds or milliseconds, or ISO 8601, in UTC unless it says otherwise; "
        "without it, when the event arrived",
    )
    event: Type | None = Field(None, description="its type, such as view or purchase")
    event_id: Id | None = Field(
        None,
        description="the client's own id, apart for each user; an event that is sent again with it "
        "is not taken twice",
    )
    impression_id: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$")] | None = Field(
        None, description="the answer that showed the item, by its impression_id"
    )

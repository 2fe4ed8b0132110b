"""What all schemas share: ids, limits, base classes, and the body of an error."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict, JsonValue

from service.store.events import (
    IdInPath,
    Text,
    TextOrInteger,
    check_id_length,
    integer_as_text,
)

# Room for the longest lists of the longest ids.
BODY_LIMIT_BYTES = 4 * 1024 * 1024
SEQUENCE_LIMIT = 1000
EVENTS_LIMIT = 1000


def _check_id_lengths(texts: list[str]) -> list[str]:
    # One check for all: most ids are ASCII, and pydantic has checked their length already.
    if not "".join(texts).isascii():
        for text in texts:
            check_id_length(text)
    return texts


def _integers_as_text(values: Any) -> Any:
    if not isinstance(values, list):
        return values
    try:
        "".join(values)  # much faster than a look at each; mostly all are texts
    except TypeError:
        return [integer_as_text(value) for value in values]
    return values


_IN_PATH = "any characters, percent-encoded; slashes need no encoding"
UserInPath = Annotated[IdInPath, Field(description=_IN_PATH, examples=["anna"])]
ItemInPath = Annotated[IdInPath, Field(description=_IN_PATH, examples=["item-1"])]
Names = Annotated[list[Text], Field(max_length=SEQUENCE_LIMIT), AfterValidator(_check_id_lengths)]
NonEmptyNames = Annotated[
    list[Text], Field(min_length=1, max_length=SEQUENCE_LIMIT), AfterValidator(_check_id_lengths)
]
Ids = Annotated[
    Names,
    BeforeValidator(
        _integers_as_text,
        json_schema_input_type=Annotated[list[TextOrInteger], Field(max_length=SEQUENCE_LIMIT)],
    ),
]


def example(**fields: Any) -> ConfigDict:
    """The example in the documentation. A test sends it, or validates it as a response."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


def at_least_one(kinds: Mapping[str, JsonDict]) -> JsonDict:
    """The part of a schema that asks for at least one of these properties, and not null.

    In allOf, as generators of clients take the fields beside a bare anyOf for one of it.
    """
    given: list[JsonValue] = [
        {"type": "object", "required": [name], "properties": {name: kind}}
        for name, kind in kinds.items()
    ]
    return {"allOf": [{"anyOf": given}]}


class Input(BaseModel):
    """Base class of request models. Strict: no conversions, no extra fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Output(BaseModel):
    """Base class of response models."""

    model_config = ConfigDict(frozen=True)


class ProblemDetail(Output):
    where: str
    message: str


class ErrorDetail(Output):
    code: str = Field(description="for programs; stable for each kind of error")
    message: str = Field(description="for people: what was given, what is allowed, what to do")
    problems: list[ProblemDetail] = Field([], description="for invalid requests: the problems")


class ErrorBody(Output):
    """The body of every error."""

    model_config = example(
        error={
            "code": "invalid_request",
            "message": "k: Input should be greater than or equal to 1; given 0",
            "problems": [
                {"where": "k", "message": "Input should be greater than or equal to 1; given 0"}
            ],
        }
    )

    error: ErrorDetail

"""What all that is taken and given shares: ids, limits, and the one shape of an error."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.store.events import Id, Text, check_id_length

BODY_LIMIT_BYTES = 256 * 1024
SEQUENCE_LIMIT = 1000
EVENTS_LIMIT = 1000


def _all_short(texts: list[str]) -> list[str]:
    # One look at all of them: most are ASCII, of which pydantic has counted the bytes.
    if not "".join(texts).isascii():
        for text in texts:
            check_id_length(text)
    return texts


_IN_PATH = "of any characters, percent-encoded; a slash may stay as it is"
UserInPath = Annotated[Id, Field(description=_IN_PATH, examples=["anna"])]
ItemInPath = Annotated[Id, Field(description=_IN_PATH, examples=["item-1"])]
Ids = Annotated[list[Text], Field(max_length=SEQUENCE_LIMIT), AfterValidator(_all_short)]
SomeIds = Annotated[
    list[Text], Field(min_length=1, max_length=SEQUENCE_LIMIT), AfterValidator(_all_short)
]


def example(**fields: Any) -> ConfigDict:
    """What the documentation shows of a model; a test sends it, or holds it against an answer."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


class Input(BaseModel):
    """Strict: no conversions, no extra fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Output(BaseModel):
    model_config = ConfigDict(frozen=True)


class ProblemDetail(Output):
    where: str
    message: str


class ErrorDetail(Output):
    code: str = Field(description="for programs; never changes for one kind of error")
    message: str = Field(description="for people: what was given, what is allowed, what to do")
    problems: list[ProblemDetail] = Field([], description="for invalid requests, each problem")


class ErrorBody(Output):
    """The one shape of every error."""

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

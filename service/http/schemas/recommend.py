"""POST /recommend and /recommend/batch: for whom, what may be in the answer, and the candidates."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.config import JsonDict

from service.http.schemas.common import ErrorBody, Ids, Input, Output, SomeIds, example
from service.settings import MAX_K
from service.store.events import Id

REQUESTS_LIMIT = 256

_ASKED: JsonDict = {
    "user_id": "anna",
    "sequence": ["item-1", "item-2"],
    "k": 2,
    "exclude_seen": True,
    "exclude": ["item-9"],
    "categories": {"deny": ["used books"]},
    "diversity": 0.3,
}
_GIVEN: JsonDict = {
    "items": [
        {"item_id": "item-5", "score": 3.2, "interest": 0},
        {"item_id": "item-7", "score": 2.9, "interest": 2},
    ],
    "release": "2026-01-01",
    "source": "interests",
    "degraded": False,
    "unknown_items": 0,
}
_REFUSED: JsonDict = {
    "error": {"code": "invalid_request", "message": "neither user_id nor sequence"}
}


class AskedCategories(Input):
    """Names as the catalogue has them. Items without a category pass `deny` and fail `allow`."""

    allow: SomeIds | None = Field(
        None, description="items of other categories than these are left out"
    )
    deny: Ids | None = Field(None, description="items of these categories are left out")


class RecommendRequest(Input):
    """For whom: a user, whose stored history is read, or a sequence, or both."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [_ASKED, {"sequence": ["item-1"], "k": 2, "explain": True}],
            "anyOf": [
                {"required": ["user_id"], "properties": {"user_id": {"type": "string"}}},
                {"required": ["sequence"], "properties": {"sequence": {"type": "array"}}},
            ],
        }
    )

    user_id: Id | None = Field(None, description="whose stored history to start from")
    sequence: Ids | None = Field(
        None, description="item ids, oldest first; with user_id, they follow the stored history"
    )
    k: int = Field(50, ge=1, le=MAX_K, description="items wanted")
    exclude_seen: bool = Field(True, description="leave out the items of the history")
    exclude: Ids | None = Field(
        None, description="further item ids to leave out; unknown ones are passed over"
    )
    categories: AskedCategories | None = Field(
        None, description="of which categories items may be; without it, of any"
    )
    diversity: float = Field(
        0.0,
        ge=0,
        le=1,
        description="how much the items' differing in category counts against their scores, on a "
        "scale that is the same for every model; 0 is off, at 1 categories take turns",
    )
    explain: bool = Field(False, description="tell what each interest found and is made of")

    @model_validator(mode="after")
    def _for_somebody(self) -> "RecommendRequest":
        if self.user_id is None and self.sequence is None:
            raise ValueError("neither user_id nor sequence; give one, or both")
        return self


class Candidate(Output):
    item_id: str
    score: float = Field(
        description="inner product with the interest; for popular items, interactions in the log"
    )
    interest: int | None = Field(
        description="which of the user's interests, from 0, found the item; null if popular"
    )
    new: bool = Field(
        False,
        description="true for an item that came after the release and is placed by who took it; "
        "not there for others",
    )
    scores: list[float] | None = Field(
        None, description="with `explain`, unless popular: the score under each of the interests"
    )


class Attended(Output):
    item_id: str
    weight: float = Field(
        description="its share in the interest; the shares of the history's newest items, as many "
        "as the encoder sees, add up to 1"
    )


class ExplainedInterest(Output):
    share: float = Field(description="share of the answer's items that this interest found")
    attended: list[Attended] = Field(
        description="the items of the history that it is made of, largest weight first, at most 10"
    )


class Recommendations(Output):
    """Candidates, best first, none twice; fewer than k only if no more are allowed."""

    model_config = example(**_GIVEN)

    items: list[Candidate]
    release: str = Field(description="id of the release that gave them")
    source: Literal["interests", "popular"] = Field(
        description="popular where the history is empty or holds no item that is known, even as new"
    )
    degraded: bool = Field(description="whether the stored history was wanted but not to be had")
    unknown_items: int = Field(description="items of the history that the release does not know")
    interests: list[ExplainedInterest] | None = Field(
        None, description="with `explain`: the interests, from 0; none if popular"
    )


def _or_error(given: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(given)
    except ValidationError as error:
        return error


class RecommendBatch(Input):
    """Requests that are answered together. What is wrong with one is told in its place."""

    model_config = example(requests=[_ASKED, {"user_id": "ben"}, {"k": 5}])
    LIMIT_BYTES: ClassVar[int] = 4 * 1024 * 1024

    requests: list[Annotated[RecommendRequest, WrapValidator(_or_error)]] = Field(
        min_length=1, max_length=REQUESTS_LIMIT
    )

    @property
    def checked(self) -> list[RecommendRequest | ValidationError]:
        """What each of them turned out to be."""
        return [*self.requests]


class RecommendedBatch(Output):
    """As many answers as there were requests, in their order, all of one release."""

    model_config = example(answers=[_GIVEN, _GIVEN, _REFUSED])

    answers: list[Recommendations | ErrorBody]

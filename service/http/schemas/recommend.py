"""POST /recommend and POST /recommend/batch."""

from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.config import JsonDict

from service.http.schemas.attributes import AttributeNames, AttributeValue, ItemFilter
from service.http.schemas.business_rules import Boosts, CategoryMinimums, InterestQuota, MinNewItems
from service.http.schemas.common import (
    SEQUENCE_LIMIT,
    ErrorBody,
    Ids,
    Input,
    Names,
    NonEmptyNames,
    Output,
    at_least_one,
    example,
)
from service.http.schemas.seen import ExcludeSeen, SeenFilter
from service.http.schemas.shown import Cursor, FrequencyCap
from service.settings import MAX_K
from service.store.events import Id, Time

BATCH_LIMIT = 256

Timestamps = Annotated[list[Time | None], Field(max_length=SEQUENCE_LIMIT)]

_REQUEST_EXAMPLE: JsonDict = {
    "user_id": "anna",
    "sequence": ["item-1", "item-2"],
    "k": 2,
    "exclude_seen": True,
    "exclude": ["item-9"],
    "categories": {"deny": ["used books"]},
    "filter": {"all": [{"price": {"lte": 50}}, {"brand": {"in": ["a", "b"]}}]},
    "include": ["title", "price"],
    "diversity": 0.3,
    "boost": [{"filter": {"all": [{"brand": "a"}]}, "add": 0.2}],
    "interest_quota": 1,
    "min_per_category": {"new books": 1},
    "min_new_items": 1,
}
_RESPONSE_EXAMPLE: JsonDict = {
    "items": [
        {"item_id": "item-5", "score": 3.2, "interest": 0},
        {"item_id": "item-7", "score": 2.9, "interest": 2},
    ],
    "impression_id": "8dmAHv0oFL1VXkfDC2VJPg",
    "release": "2026-01-01",
    "source": "interests",
    "degraded": False,
    "unknown_items": 0,
}
_ERROR_EXAMPLE: JsonDict = {
    "error": {"code": "invalid_request", "message": "neither user_id nor sequence"}
}


class Categories(Input):
    """Category names of the catalog. Items without a category pass `deny` and fail `allow`."""

    allow: NonEmptyNames | None = Field(None, description="only items of these categories")
    deny: Names | None = Field(None, description="no items of these categories")


class RecommendRequest(Input):
    """Recommend for a user, whose stored history is read, or a sequence, or both."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [_REQUEST_EXAMPLE, {"sequence": ["item-1"], "k": 2, "explain": True}],
            **at_least_one(
                {"user_id": {"type": ["string", "integer"]}, "sequence": {"type": "array"}}
            ),
        }
    )

    user_id: Id | None = Field(None, description="the user whose stored history is read")
    sequence: Ids | None = Field(
        None, description="item ids, oldest first; with user_id, appended to the stored history"
    )
    timestamps: Timestamps | None = Field(
        None,
        description="when each event of the sequence was: Unix seconds or milliseconds, or ISO "
        "8601; null where that is not known. Some encoders read it",
    )
    k: int = Field(50, ge=1, le=MAX_K, description="number of items")
    exclude_seen: ExcludeSeen = Field(
        True,
        description="exclude the items of the history, and those that the user met before; without "
        "it, as the release was evaluated: true unless it was fitted with --exclude-seen false. An "
        "object excludes only those that the user met so, whether or not they are in the history",
    )
    exclude: Ids | None = Field(
        None, description="further item ids to exclude; unknown ids are ignored"
    )
    categories: Categories | None = Field(
        None, description="allowed and denied categories; without it, all are allowed"
    )
    filter: ItemFilter | None = Field(
        None, description="conditions on attributes; without it, all items are allowed"
    )
    include: AttributeNames | None = Field(
        None, description="attributes, and `title`, to add to each candidate"
    )
    diversity: float = Field(
        0.0,
        ge=0,
        le=1,
        description="weight of category diversity against the scores, on the same scale for every "
        "model; 0 is off, at 1 the categories alternate",
    )
    boost: Boosts | None = Field(
        None, description="raise items by attributes; without it, none is raised"
    )
    interest_quota: InterestQuota | None = Field(
        None,
        description="so many of the items one interest may have found at the most; others fill the "
        "answer from the 16k best allowed items; popular items, which no interest found, have no "
        "quota",
    )
    min_per_category: CategoryMinimums | None = Field(
        None,
        description="so many of the items are of this category at the least, if so many are "
        "allowed, in sum at most k; they take the places of the lowest scored, whatever their "
        "interest's quota",
    )
    min_new_items: MinNewItems | None = Field(
        None,
        description="so many of the items are cold-start items at the least, the best of them for "
        "this user, if so many are allowed; together with `min_per_category` at most k, and like "
        "it they take the places of the lowest scored; without it, the setting min-new-items",
    )
    frequency_cap: FrequencyCap | None = Field(
        None,
        description="exclude items that the user was shown so often; the answer counts as shown, "
        "as do events of kinds with the effect `shown`",
    )
    cursor: Cursor | None = Field(
        None,
        description="for pages without repeats: `start`, then the cursor of the page before",
    )
    explain: bool = Field(
        False,
        description="add what each interest found, and the history items it attends to",
    )

    @model_validator(mode="after")
    def _has_user_or_sequence(self) -> "RecommendRequest":
        if self.user_id is None and self.sequence is None:
            raise ValueError("neither user_id nor sequence; give one, or both")
        if self.user_id is None and self.frequency_cap is not None:
            raise ValueError("frequency_cap: counts what a user is shown; give user_id")
        if self.user_id is None and isinstance(self.exclude_seen, SeenFilter):
            raise ValueError(
                "exclude_seen: kinds and days are those of stored events; give user_id, or true or "
                "false"
            )
        return self

    @model_validator(mode="after")
    def _has_a_time_for_each_event(self) -> "RecommendRequest":
        if self.timestamps is not None and len(self.timestamps) != len(self.sequence or ()):
            raise ValueError(
                f"timestamps: {len(self.timestamps)} for a sequence of {len(self.sequence or ())} "
                "items; give one for each, null where it is not known"
            )
        return self

    @model_validator(mode="after")
    def _has_room_for_minimums(self) -> "RecommendRequest":
        needed = sum((self.min_per_category or {}).values())
        if needed > self.k:
            raise ValueError(f"min_per_category: {needed} items in sum; at most k, {self.k}")
        left, new = self.k - needed, self.min_new_items or 0
        if new > left:
            raise ValueError(f"min_new_items: {new} items; at most {left} of k are left for them")
        return self


class Candidate(Output):
    item_id: str
    score: float = Field(
        description="inner product with the interest; for popular items, interactions in the log; "
        "with `boost`, what that added is part of it"
    )
    boost: float | None = Field(
        None,
        description="with `boost`: what it added to the score, `add` times the spread of the "
        "scores: best less worst of the 4k best allowed items without boosts",
    )
    interest: int | None = Field(
        description="index of the interest that found the item, from 0; null for popular items"
    )
    new: bool = Field(
        False,
        description="true for a cold-start item, which is newer than the release and gets its "
        "vector from the users who interacted with it, or from its words; absent for other items",
    )
    scores: list[float] | None = Field(
        None, description="with `explain`, except for popular items: the score for each interest"
    )
    attributes: dict[str, AttributeValue | None] | None = Field(
        None, description="with `include`: those attributes; null where unknown"
    )


class Attended(Output):
    item_id: str
    weight: float = Field(
        description="attention weight of the item in the interest; over the newest items of the "
        "history, as many as the encoder reads, the weights sum to 1"
    )


class ExplainedInterest(Output):
    share: float = Field(description="share of the response's items that this interest found")
    attended: list[Attended] = Field(
        description="history items with the largest weights, largest first, at most 10"
    )


class Recommendations(Output):
    """Candidates, best first, without duplicates; fewer than k only if no more are allowed."""

    model_config = example(**_RESPONSE_EXAMPLE)

    items: list[Candidate]
    impression_id: str = Field(description="id of this answer, which events on its items may name")
    cursor: str | None = Field(
        None, description="with `cursor`: that of the next page, null on the last; else absent"
    )
    release: str = Field(description="id of the release that made them")
    variant: Literal["current", "canary"] | None = Field(
        None, description="while a canary runs, which of the two releases that is; else absent"
    )
    source: Literal["interests", "popular"] = Field(
        description="popular if the history is empty, or contains neither items of the release nor "
        "cold-start items"
    )
    degraded: bool = Field(
        description="whether the stored history was requested but could not be read"
    )
    unknown_items: int = Field(description="items of the history that are not in the release")
    unknown_attributes: list[str] | None = Field(
        None, description="names in `include` that no item has; absent where there are none"
    )
    interests: list[ExplainedInterest] | None = Field(
        None, description="with `explain`: the interests, from 0; empty for popular items"
    )


def _validate_or_error(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError as error:
        return error


class RecommendBatch(Input):
    """Requests answered together. The error of an invalid one is in its place among the answers."""

    model_config = example(requests=[_REQUEST_EXAMPLE, {"user_id": "ben"}, {"k": 5}])

    requests: list[Annotated[RecommendRequest, WrapValidator(_validate_or_error)]] = Field(
        min_length=1, max_length=BATCH_LIMIT
    )

    @property
    def entries(self) -> int:
        """How many requests the rate limit counts."""
        return len(self.requests)

    @property
    def validated(self) -> list[RecommendRequest | ValidationError]:
        """Each request, or its validation error."""
        return [*self.requests]


class RecommendedBatch(Output):
    """One answer for each request, in the same order.

    All are from one release, unless a canary answers some of the users.
    """

    model_config = example(answers=[_RESPONSE_EXAMPLE, _RESPONSE_EXAMPLE, _ERROR_EXAMPLE])

    answers: list[Recommendations | ErrorBody]

"""What the endpoints take and give. Input is strict: no conversions, no extra fields."""

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

BODY_LIMIT_BYTES = 256 * 1024
ID_LIMIT_BYTES = 512
SEQUENCE_LIMIT = 1000
EVENTS_LIMIT = 1000
K_LIMIT = 1000


def _short(text: str) -> str:
    if not text.isascii() and (size := len(text.encode())) > ID_LIMIT_BYTES:
        raise ValueError(f"an id of {size} bytes in UTF-8; at most {ID_LIMIT_BYTES} are allowed")
    return text


def _all_short(texts: list[str]) -> list[str]:
    # One look at all of them: most are ASCII, of which pydantic has counted the bytes.
    if not "".join(texts).isascii():
        for text in texts:
            _short(text)
    return texts


_Text = Annotated[str, Field(min_length=1, max_length=ID_LIMIT_BYTES)]
Id = Annotated[_Text, AfterValidator(_short)]
Ids = Annotated[list[_Text], Field(max_length=SEQUENCE_LIMIT), AfterValidator(_all_short)]


class _Input(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class _Output(BaseModel):
    model_config = ConfigDict(frozen=True)


class RecommendRequest(_Input):
    """For whom: a user, whose stored history is read, or a sequence, or both."""

    user_id: Id | None = Field(None, description="whose stored history to start from")
    sequence: Ids | None = Field(
        None, description="item ids, oldest first; with user_id, they follow the stored history"
    )
    k: int = Field(50, ge=1, le=K_LIMIT, description="items wanted")
    exclude_seen: bool = Field(True, description="leave out the items of the history")

    @model_validator(mode="after")
    def _for_somebody(self) -> "RecommendRequest":
        if self.user_id is None and self.sequence is None:
            raise ValueError("neither user_id nor sequence; give one, or both")
        return self


class Candidate(_Output):
    item_id: str
    score: float = Field(
        description="inner product with the interest; for popular items, interactions in the log"
    )
    interest: int | None = Field(
        description="which of the user's interests, from 0, found the item; null if popular"
    )


class Recommendations(_Output):
    """Candidates, best first, none twice; fewer than k only if the catalogue has no more."""

    items: list[Candidate]
    release: str = Field(description="id of the release that gave them")
    source: Literal["interests", "popular"] = Field(
        description="popular where the history is empty or holds no known item"
    )
    degraded: bool = Field(description="whether the stored history was wanted but not to be had")
    unknown_items: int = Field(description="items of the history that the release does not know")


class Event(_Input):
    """A user met an item."""

    user_id: Id
    item_id: Id
    timestamp: float | None = Field(
        None, ge=0, description="Unix seconds; without it, when the event arrived"
    )
    event: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        None, description="its type, such as view or purchase"
    )
    event_id: Id | None = Field(
        None, description="the client's own id, by which one sent twice is known in the log"
    )


Events = Annotated[list[Event], Field(min_length=1, max_length=EVENTS_LIMIT)]

# Told apart by their outer shape, so that a complaint is about the one that was meant.
EventOrEvents = Annotated[
    Annotated[Event, Tag("event")] | Annotated[Events, Tag("events")],
    Discriminator(lambda given: "events" if isinstance(given, list) else "event"),
]


class Accepted(_Output):
    accepted: int = Field(description="events that are now in the history and the log")


class Alive(_Output):
    status: Literal["alive"] = "alive"


class Ready(_Output):
    status: Literal["ready"] = "ready"
    release: str
    history: Literal["ok", "degraded"]


class ReloadFailure(_Output):
    """The last attempt to load what `current` names, if it failed."""

    release: str | None = Field(description="the id that `current` names; null if unreadable")
    message: str
    failed_at: str = Field(description="ISO 8601, UTC")
    attempts: int = Field(description="failures in a row")


class ReleaseFacts(_Output):
    """What is known of the release in use."""

    id: str
    created: str
    parent: str | None
    loaded_at: str = Field(description="ISO 8601, UTC")
    encoder: str
    interests: int
    items: int
    index: dict[str, object] = Field(description="kind and parameters, and what was measured")
    data: dict[str, float] = Field(description="size and time of the log that was trained on")
    metrics: dict[str, dict[str, float]] = Field(description="split -> metric -> value")


class ReleaseState(_Output):
    release: ReleaseFacts | None
    last_reload_error: ReloadFailure | None


class Reloaded(_Output):
    release: str = Field(description="id of the release now in use")
    changed: bool = Field(description="whether it was another one before")


class ProblemDetail(_Output):
    where: str
    message: str


class ErrorDetail(_Output):
    code: str = Field(description="for programs; never changes for one kind of error")
    message: str = Field(description="for people: what was given, what is allowed, what to do")
    problems: list[ProblemDetail] = Field([], description="for invalid requests, each problem")


class ErrorBody(_Output):
    """The one shape of every error."""

    error: ErrorDetail

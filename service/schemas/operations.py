"""What tells how the server is: alive, ready, with which release."""

from typing import Literal

from pydantic import Field

from service.schemas.common import Output


class Alive(Output):
    status: Literal["alive"] = "alive"


class Ready(Output):
    status: Literal["ready"] = "ready"
    release: str
    history: Literal["ok", "degraded"]


class ReloadFailure(Output):
    """The last attempt to load what `current` names, if it failed."""

    release: str | None = Field(description="the id that `current` names; null if unreadable")
    message: str
    failed_at: str = Field(description="ISO 8601, UTC")
    attempts: int = Field(description="failures in a row")


class ReleaseFacts(Output):
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


class ReleaseState(Output):
    release: ReleaseFacts | None
    last_reload_error: ReloadFailure | None


class Reloaded(Output):
    release: str = Field(description="id of the release now in use")
    changed: bool = Field(description="whether it was another one before")

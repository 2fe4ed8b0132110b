"""Health, and the release in use."""

from typing import Literal

from pydantic import Field

from service.http.schemas.common import Output, example


class Alive(Output):
    model_config = example(status="alive")

    status: Literal["alive"] = "alive"


class Ready(Output):
    model_config = example(status="ready", release="2026-01-01", history="ok")

    status: Literal["ready"] = "ready"
    release: str
    history: Literal["ok", "degraded"]
    failing: dict[str, str] = Field(
        {}, description="operations that Redis fails, each with the reason; absent if it does all"
    )


class TenantsReady(Output):
    """Of a process that serves several tenants."""

    model_config = example(status="ready", ready_tenants=3, tenants=3)

    status: Literal["ready"] = "ready"
    ready_tenants: int = Field(description="how many have a release")
    tenants: int


class ReloadFailure(Output):
    """The last attempt to load the release that `current` names, if it failed."""

    release: str | None = Field(description="the id that `current` names; null if unreadable")
    message: str
    failed_at: str = Field(description="ISO 8601, UTC")
    attempts: int = Field(description="consecutive failures")


class ReleaseFacts(Output):
    """The release in use."""

    id: str
    created: str
    parent: str | None
    loaded_at: str = Field(description="ISO 8601, UTC")
    encoder: str
    interests: int
    items: int
    index: dict[str, object] = Field(description="kind, parameters and measurements")
    kernel: str = Field(description="kernel of the item search on this processor")
    searched_by: Literal["flat", "ivf", "milvus"] = Field(
        description="the kind of index in use: flat, if the tuned one is slower on this processor"
    )
    data: dict[str, float] = Field(description="size and time range of the training log")
    metrics: dict[str, dict[str, float]] = Field(description="split -> metric -> value")


class CanaryFacts(Output):
    """The release that answers a share of the users beside the release in use."""

    release: str
    share: float = Field(description="share of the users")
    shadow: bool = Field(description="whether it is asked without its answers being shown")
    loaded_at: str = Field(description="ISO 8601, UTC")


class CanaryFailure(Output):
    """Why there is no canary though the file `canary` names one."""

    release: str | None = Field(description="the id that it names; null if unreadable")
    message: str
    failed_at: str = Field(description="ISO 8601, UTC")


class ReleaseState(Output):
    model_config = example(
        release={
            "id": "2026-01-01",
            "created": "2026-01-01T06:00:00+00:00",
            "parent": "2025-12-25",
            "loaded_at": "2026-01-01T06:30:00+00:00",
            "encoder": "re4",
            "interests": 8,
            "items": 12_101,
            "index": {"spec": {"kind": "flat"}, "recall": 1.0, "k": 50, "microseconds": 108.0},
            "kernel": "native-avx2",
            "searched_by": "flat",
            "data": {
                "interactions": 198_502,
                "users": 22_363,
                "items": 12_101,
                "first": 1.0e9,
                "last": 1.4e9,
            },
            "metrics": {"validation": {"recall@50": 0.16}},
        },
        last_reload_error={
            "release": "2026-01-02",
            "message": "2026-01-02: items.faiss is missing; publish the release again",
            "failed_at": "2026-01-02T06:30:00+00:00",
            "attempts": 1,
        },
        canary={
            "release": "2026-01-02-canary",
            "share": 0.1,
            "shadow": False,
            "loaded_at": "2026-01-02T07:30:00+00:00",
        },
        canary_error=None,
    )

    release: ReleaseFacts | None
    last_reload_error: ReloadFailure | None
    why_none: str | None = Field(
        None, description="if `release` is null, why, and what to do; null otherwise"
    )
    canary: CanaryFacts | None = Field(None, description="null if none is in use")
    canary_error: CanaryFailure | None = Field(
        None, description="why a canary could not be loaded; null otherwise"
    )


class Reloaded(Output):
    model_config = example(release="2026-01-01", changed=True)

    release: str = Field(description="id of the release now in use")
    changed: bool = Field(description="whether another release was in use before")

"""The settings of live quality and of canaries, a part of the service's."""

from typing import Literal

from pydantic import BaseModel, Field


class CanarySettings(BaseModel):
    quality_sample_rate: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of the users who are observed for the hit rate of the live release, "
        "always the same; 0 turns it off",
    )
    quality_days: float = Field(
        7.0,
        gt=0,
        le=90,
        description="days of which the hit rate of the live release is, and for which a user is "
        "not observed again",
    )
    canary_window_hours: float = Field(
        1.0,
        gt=0,
        le=720,
        description="hours from a user's first answer in which an event on an answered item is a "
        "hit",
    )
    canary_alpha: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="probability, at most, that a canary that is not worse is aborted in the end",
    )
    canary_min_users: int = Field(
        100, ge=1, description="users of each variant before anything is decided about a canary"
    )
    canary_on_worse: Literal["abort", "report"] = Field(
        "abort", description="what is done about a canary that is worse beyond doubt"
    )

"""Live quality: of the canary, and of the live release."""

from typing import Literal

from pydantic import Field

from service.http.schemas.common import Output, example

_RATE = {"low": 0.08, "estimate": 0.1, "high": 0.12}


class RateInterval(Output):
    """An estimate and its interval."""

    low: float
    estimate: float
    high: float


class QualityOfVariant(Output):
    """The quality of one variant's answers."""

    users: int = Field(description="users whose window has ended")
    hit_rate: RateInterval = Field(
        description="share of these users who had an event on an answered item; 95 % interval"
    )
    by_interest: dict[str, RateInterval] = Field(
        description="the same for hits that this interest found, or `popular`"
    )
    answers: int = Field(description="answers to users, all of them")
    items: int = Field(description="different items in these answers, to about 1 %")


class LiveQuality(QualityOfVariant):
    """The quality of the live release's answers to the users of a sample."""

    release: str = Field(description="its id")


class Quality(Output):
    """The quality of both variants, and their difference."""

    variants: dict[str, QualityOfVariant] = Field(description="`current` and `canary`")
    difference: RateInterval = Field(
        description="of the hit rates, canary - current; valid however often it is looked at"
    )
    verdict: Literal["undecided", "better", "worse"] = Field(
        description="whether the canary is better or worse beyond doubt"
    )


_VARIANT = {
    "users": 900,
    "hit_rate": _RATE,
    "by_interest": {"0": _RATE, "popular": _RATE},
    "answers": 2500,
    "items": 4000,
}


class CanaryReport(Output):
    model_config = example(
        release="2026-01-02",
        aborted=False,
        quality={
            "variants": {"current": _VARIANT, "canary": _VARIANT},
            "difference": {"low": -0.05, "estimate": 0.0, "high": 0.05},
            "verdict": "undecided",
        },
        live={"release": "2026-01-01", **_VARIANT},
    )

    release: str | None = Field(description="id of the canary; null without one")
    aborted: bool = Field(description="whether it was aborted as it was worse")
    quality: Quality | None = Field(description="null without a canary, and in shadow mode")
    live: LiveQuality | None = Field(
        description="that of the live release, also without a canary; null without a release, and "
        "if no users are observed"
    )

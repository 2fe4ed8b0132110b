"""What a night can be told. Frozen, unknown keys refused; a fit's settings are a part of it."""

import json
from collections.abc import Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from index.release.publish import KEEP
from training.config import ConfigError, FitConfig, read_config, read_toml
from training.presets import PresetName

OutcomeName = Literal["published", "failed", "refused", "nothing-new", "running"]

# What is told to others about a night, and how long, changes nothing in what comes out of it.
_BESIDE = {"webhook", "command", "tell", "hook_timeout_s", "hook_attempts", "resume_h", "threads"}


# What a fit that starts warm cannot change.
_OF_THE_MODEL = {
    *("encoder", "interests", "history", "dim", "hidden", "recency", "head", "biases"),
    *("iterations", "dynamic", "layers", "heads", "score_temperature"),
}


class NightConfig(BaseModel):
    """One night: what is read, how it is trained, what is asked of it, and who is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path = Field(description="folder of drafts, releases and nights")

    # the window
    events: Path = Field(description="folder of date=YYYY-MM-DD folders of Parquet files")
    log: Path | None = Field(None, description="log of what came before the events")
    items: Path | None = Field(None, description="file of item titles and categories")
    kinds: tuple[str, ...] = Field((), description="event types to keep; none given keeps all")
    window_days: float | None = Field(
        None, gt=0, description="days before the end that are read; none reads everything"
    )
    until: float | None = Field(
        None,
        allow_inf_nan=False,
        description="end of the window: Unix seconds or ISO 8601, of this machine's zone unless it "
        "names one; none is now",
    )
    held_out_days: float = Field(
        1.0, gt=0, description="days at the end that are held out, as far as live has not seen them"
    )
    held_out_share: float | None = Field(
        None, gt=0, lt=1, description="share of the interactions to hold out, in place of days"
    )
    min_cases: int = Field(
        20, ge=1, description="users to compare on; a night with fewer has nothing new"
    )

    # the fit
    cold: bool = Field(False, description="from scratch, not from the live release")
    preset: PresetName = Field("best", description="settings of the fit where none are given")
    fit: dict[str, Any] = Field(default_factory=dict, description="settings of the fit")
    warm: dict[str, Any] = Field(
        default_factory=dict, description="settings of the fit that differ where it starts warm"
    )
    refit_epochs: int = Field(
        1, ge=0, description="epochs on all data, the held-out day included, before publishing"
    )
    catch_up: int = Field(
        2,
        ge=0,
        description="passes over what is newest alone: over the held-out day after those epochs, "
        "and before a warm fit over what live has not seen of the time before that day",
    )
    threads: int = Field(1, ge=1, description="of torch")

    # the index and the gate
    index_recall: float = Field(0.95, gt=0, le=1, description="recall at index_k to build for")
    index_k: int = Field(50, ge=1, description="items at which the index's recall is measured")
    metric: str = Field(
        "recall@50",
        pattern=r"^(recall|hit|ndcg)@(5|10|20|50)$",
        description="what new and live are compared by",
    )
    metric_drop: float = Field(0.05, ge=0, description="share by which new may be below live")
    metric_errors: float = Field(
        2.0, ge=0, description="standard errors of the difference by which it may be, if more"
    )
    day_drop: float = Field(
        0.5,
        ge=0,
        description="share of its lead over popularity that live may have lost on this day",
    )
    ann_recall: float = Field(0.95, description="least recall of the index")
    size_change: float = Field(0.2, description="share by which the catalogue may grow or shrink")
    keep: int = Field(KEEP, ge=1, description="releases to keep")

    # the end
    plots: bool = Field(True, description="draw the report's plots")
    keep_nights: int = Field(30, ge=1, description="nights whose report and refused draft are kept")
    resume_h: float = Field(
        12.0, ge=0, description="hours after which a night that was cut short is given up"
    )
    webhook: str | None = Field(
        None, min_length=1, description="URL that is posted the JSON of each outcome"
    )
    command: str | None = Field(
        None, pattern=r"\S", description="command that is given it on standard input"
    )
    tell: tuple[OutcomeName, ...] = Field(
        ("published", "failed", "refused", "nothing-new"), description="outcomes that are told"
    )
    hook_timeout_s: float = Field(10.0, gt=0, description="seconds a hook may take")
    hook_attempts: int = Field(3, ge=1, description="times a webhook is tried")

    @field_validator("until", mode="before")
    @classmethod
    def _seconds(cls, given: Any) -> Any:
        moment = given
        if isinstance(given, str):
            try:
                moment = datetime.fromisoformat(given)
            except ValueError:
                return given
        elif isinstance(given, date) and not isinstance(given, datetime):
            moment = datetime.combine(given, time())
        if not isinstance(moment, datetime):
            return given
        return (moment if moment.tzinfo else moment.astimezone()).timestamp()

    @field_validator("root", "events", "log", "items", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if given == "":
            raise ValueError("name a file or folder; . is this one")
        return given

    def fit_config(self, warm: bool) -> FitConfig:
        """Raises ConfigError for a setting that a fit does not have."""
        # The stage that precedes a two-stage training is behind a model that was trained before.
        started = {"pretrain_epochs": 0, **self.warm} if warm else {}
        return read_config(None, {"split": "temporal", **self.fit, **started}, self.preset)

    def settings(self) -> dict[str, Any]:
        """All that decides what comes out, as JSON."""
        settings: dict[str, Any] = json.loads(self.model_dump_json(exclude=_BESIDE))
        return settings


def read_night(path: Path | None, overrides: Sequence[tuple[str, Any]]) -> NightConfig:
    """A TOML file's settings, then `overrides`, whose keys may have dots: ("fit.epochs", 3).

    Raises ConfigError for a key that does not exist or a value that is not allowed.
    """
    settings = read_toml(path)
    for key, value in overrides:
        part, _, setting = key.partition(".")
        if not setting:
            settings[part] = value
        elif isinstance(settings.setdefault(part, {}), dict):
            settings[part] = {**settings[part], setting: value}
        else:
            raise ConfigError(f"{key}: {part} has no settings of its own; those of fit and warm do")
    try:
        config = NightConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = ", ".join(sorted(NightConfig.model_fields))
        hint = f"; known are {known}" if first["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{where}: {first['msg']}{hint}") from error
    for warm in (False, True):
        try:
            config.fit_config(warm)
        except ConfigError as error:
            raise ConfigError(f"{'warm' if warm else 'fit'}: {error}") from error
    for name in sorted(_OF_THE_MODEL & config.warm.keys()):
        raise ConfigError(f"warm: {name} is of the model, which goes on; set it in fit")
    return config

"""The settings of a nightly run, those of its fit included. Frozen, unknown keys refused."""

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator

from index.ann.spec import MilvusIndexType
from index.options import EngineOptions
from index.release.pruning import KEEP
from training.config import ConfigError, FitConfig, read_config, read_toml, refuse_former_names
from training.data.paths import InputPath
from training.data.time_units import describe, unit_of
from training.evaluation.metrics import GateMetric
from training.fitting.candidates import Search, leaves_open, read_search
from training.models.options import model_identity
from training.presets import PresetName

OutcomeName = Literal["published", "failed", "refused", "nothing-new", "running"]

# Former name -> name.
FORMER_NAMES: Mapping[str, str] = {
    "catch_up": "recent_data_passes",
    "command": "notification_command",
    "day_drop": "lead_drop",
    "held_out_days": "holdout_days",
    "held_out_share": "holdout_fraction",
    "hook_attempts": "webhook_attempts",
    "hook_timeout_s": "notification_timeout_s",
    "keep_nights": "keep_runs",
    "kinds": "event_types",
    "metric_errors": "metric_standard_errors",
    "min_cases": "min_holdout_users",
    "tell": "notify_on",
}
# Settings without effect on the release: notifications, and how long and how fast a run works.
_NO_EFFECT_ON_THE_RELEASE = {
    "compact_events",
    "engine_uri",  # which may have a password
    "notification_command",
    "notification_timeout_s",
    "notify_on",
    "resume_h",
    "threads",
    "webhook",
    "webhook_attempts",
}
# Settings of the fit without effect on it: a run goes on where there is no GPU.
_COMPUTATION = {"device", "compile"}


class NightConfig(EngineOptions):
    """One nightly run: its data, its training, its index, its gate and its notifications."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path = Field(description="folder of drafts, releases and nightly runs")

    # the window
    events: Path = Field(description="folder of date=YYYY-MM-DD folders of Parquet files")
    log: InputPath | None = Field(None, description="log of the interactions before the events")
    items: InputPath | None = Field(None, description="file of item titles and categories")
    compact_events: bool = Field(
        True,
        description="erase from the event files what users did before they were forgotten",
    )
    event_types: tuple[str, ...] = Field(
        (), description="event types to keep; without it, all are kept"
    )
    window_days: float | None = Field(
        None, gt=0, description="length of the window in days; none means everything is read"
    )
    until: float | None = Field(
        None,
        allow_inf_nan=False,
        description="end of the window: Unix seconds or ISO 8601, in this machine's time zone "
        "unless it names one; none means now",
    )
    holdout_days: float = Field(
        1.0,
        gt=0,
        description="days at the end that are held out, as far as the live release was not "
        "trained on them",
    )
    holdout_fraction: float | None = Field(
        None, gt=0, lt=1, description="fraction of the interactions to hold out, instead of days"
    )
    min_holdout_users: int = Field(
        20,
        ge=1,
        description="users to compare new and live on; with fewer, a run ends with nothing-new",
    )

    # the fit
    cold: bool = Field(False, description="train from scratch, not from the live release")
    preset: PresetName = Field("accurate", description="settings of the fit where none are given")
    search: bool = Field(
        False,
        description="choose encoder and K anew where fit leaves them open, training from scratch; "
        "otherwise those of the live release are kept",
    )
    fit: dict[str, Any] = Field(default_factory=dict, description="settings of the fit")
    warm: dict[str, Any] = Field(
        default_factory=dict, description="settings of the fit that differ in a warm start"
    )
    refit_epochs: int = Field(
        1, ge=0, description="epochs on all data, the held-out day included, before publishing"
    )
    recent_data_passes: int = Field(
        2,
        ge=0,
        description="passes over the most recent data only: over the held-out day after those "
        "epochs, and before a warm fit over the earlier data that the live release was not "
        "trained on",
    )
    threads: int = Field(1, ge=1, description="number of threads of torch")

    # the index and the gate
    index_recall: float = Field(
        0.95, gt=0, le=1, description="recall at index_k that the index is tuned for"
    )
    index_k: int = Field(50, ge=1, description="number of items for the recall of the index")
    engine_index: MilvusIndexType = Field("HNSW", description="milvus: type of its index")
    metric: GateMetric = Field(
        "recall@50",
        description="metric that new and live are compared by",
    )
    metric_drop: float = Field(
        0.05,
        ge=0,
        le=1,
        description="relative drop of the metric from live to new that is accepted",
    )
    metric_standard_errors: float = Field(
        2.0,
        ge=0,
        description="standard errors of the difference that are accepted as a drop, if more",
    )
    max_metric_drop: float = Field(
        0.3,
        ge=0,
        le=1,
        description="largest relative drop that standard errors may allow, so that a day of few "
        "users cannot let any model through",
    )
    popularity_drop: float = Field(
        0.0,
        ge=0,
        le=1,
        description="relative drop of the metric from popularity to new that is accepted: from "
        "that of all time, and from that of the last fit.popularity_days",
    )
    distinct_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="lowest share of distinct items among the lists of new's interests that is "
        "accepted; none refuses nothing: a collapse is a warning",
    )
    lead_drop: float = Field(
        0.5,
        ge=0,
        description="share of its lead over popularity that live may have lost on this day",
    )
    ann_recall: float = Field(0.95, ge=0, le=1, description="minimum recall of the index")
    size_change: float = Field(
        0.2, ge=0, description="accepted relative change of the catalogue's size"
    )
    keep: int = Field(KEEP, ge=1, description="number of releases to keep")
    canary_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the users whom the new release answers as a canary, until it is "
        "promoted; without it, the new release is live at once",
    )

    # the end
    plots: bool = Field(True, description="draw the report's plots")
    keep_runs: int = Field(
        30, ge=1, description="number of runs whose report and refused draft are kept"
    )
    resume_h: float = Field(
        12.0, ge=0, description="hours within which an interrupted run is resumed"
    )
    webhook: str | None = Field(
        None, min_length=1, description="URL to which the JSON of each outcome is posted"
    )
    notification_command: str | None = Field(
        None, pattern=r"\S", description="command that gets the same JSON on standard input"
    )
    notify_on: tuple[OutcomeName, ...] = Field(
        ("published", "failed", "refused", "nothing-new"),
        description="outcomes that are notified",
    )
    notification_timeout_s: float = Field(
        10.0, gt=0, description="timeout in seconds of a webhook request, and of the command"
    )
    webhook_attempts: int = Field(3, ge=1, description="number of attempts to reach the webhook")

    @field_validator("until", mode="before")
    @classmethod
    def _to_unix_seconds(cls, given: Any) -> Any:
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

    @field_validator("until")
    @classmethod
    def _in_seconds(cls, until: float | None) -> float | None:
        if until is not None and unit_of(until) not in (None, "seconds"):
            raise ValueError(f"{describe(until)}; give Unix seconds or ISO 8601")
        return until

    @field_validator("root", "events", "log", "items", mode="before")
    @classmethod
    def _not_empty(cls, given: Any) -> Any:
        if given == "":
            raise ValueError("name a file or folder; . is this one")
        return given

    def fit_config(self, warm: bool, chosen: Mapping[str, Any] | None = None) -> FitConfig:
        """chosen: what an earlier search chose; it holds where `fit` leaves the choice open.

        Raises ConfigError for a setting that a fit does not have."""
        # A model that was trained before has the first stage of a two-stage training behind it.
        warm_start = {"pretrain_epochs": 0, **self.warm} if warm else {}
        kept = chosen or {} if leaves_open(self.fit, self.preset) else {}
        settings = {**kept, "split": "temporal", **self.fit, **warm_start}
        return read_config(None, settings, self.preset)

    def search_plan(self) -> Search | FitConfig:
        """What a run from scratch chooses from. Raises ConfigError."""
        return read_search(None, {"split": "temporal", **self.fit}, self.preset)

    def settings(self) -> dict[str, Any]:
        """The settings that the release depends on, as JSON."""
        dumped = self.model_dump_json(exclude=_NO_EFFECT_ON_THE_RELEASE)
        settings: dict[str, Any] = json.loads(dumped)
        for table in ("fit", "warm"):
            settings[table] = {k: v for k, v in settings[table].items() if k not in _COMPUTATION}
        return settings


def read_night_config(path: Path | None, overrides: Sequence[tuple[str, Any]] = ()) -> NightConfig:
    """A TOML file's settings, overridden by `overrides`. Keys may have dots: ("fit.epochs", 3).

    Raises ConfigError for an unknown or former key, or a value that is not allowed.
    """
    settings = read_toml(path)
    for key, value in overrides:
        _override(settings, key, value)
    refuse_former_names(settings, FORMER_NAMES)
    try:
        config = NightConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        known = ", ".join(sorted(NightConfig.model_fields))
        hint = f"; known are {known}" if first["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{key}: {first['msg']}{hint}") from error
    _check_fits(config)
    return config


def _override(settings: dict[str, Any], key: str, value: Any) -> None:
    table, _, setting = key.partition(".")
    if not setting:
        settings[table] = value
    elif isinstance(settings.setdefault(table, {}), dict):
        settings[table] = {**settings[table], setting: value}
    else:
        raise ConfigError(f"{key}: {table} has no settings of its own; only fit and warm have")


def _check_fits(config: NightConfig) -> None:
    """Raises ConfigError if the settings of the fit, or of the warm one, cannot be used."""
    for warm in (False, True):
        try:
            config.fit_config(warm)
            config.search_plan()
        except ConfigError as error:
            raise ConfigError(f"{'warm' if warm else 'fit'}: {error}") from error
    for name in ("event_weights", "event_effects"):
        if name in config.warm:
            raise ConfigError(f"warm: {name} belong to the window, read once; set them in fit")
    for name in sorted(model_identity() & config.warm.keys()):
        raise ConfigError(f"warm: {name} is part of the model, which is kept; set it in fit")

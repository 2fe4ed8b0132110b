"""What a fit chooses from, if its settings leave the method and K open."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from index.encoders import ENCODERS
from index.encoders.arguments import TIME_GAPS
from training.config import ConfigError, FitConfig, read_config, read_toml
from training.presets import CANDIDATES, DIVERSE_CANDIDATES, PresetName

_NAMED = {"encoder", "interests"}  # who gives one of them has chosen


class Search(BaseModel):
    """candidates: by name, the most preferred first. diverse: choose among those of several
    interests whose lists differ."""

    model_config = ConfigDict(frozen=True)

    candidates: dict[str, FitConfig]
    minutes: float
    diverse: bool = False

    @property
    def first(self) -> FitConfig:
        """All candidates read, filter and split the log as it does."""
        return next(iter(self.candidates.values()))


def read_search(
    path: Path | None, overrides: dict[str, Any], preset: PresetName = "accurate"
) -> Search | FitConfig:
    """The candidates of a fit whose settings name neither encoder nor K; else the fit's settings.

    Given settings hold for all candidates; those that they contradict are left out. Raises
    ConfigError as read_config does, and if no candidate of several interests is left for `diverse`.
    """
    settings, diverse = read_toml(path) | overrides, preset == "diverse"
    config = read_config(path, overrides, preset)
    if not leaves_open(settings, preset):
        return config
    candidates = _candidates(settings, diverse)
    if diverse and not (candidates and config.search_minutes):
        raise ConfigError(
            "preset diverse chooses among candidates of several interests, and these settings "
            "leave none, or search_minutes = 0 no time; change them, or take another preset"
        )
    if len(candidates) > 1:
        return Search(candidates=candidates, minutes=config.search_minutes, diverse=diverse)
    return next(iter(candidates.values()), config)


def chosen_settings(training: Mapping[str, Any]) -> dict[str, Any]:
    """What a fit chose, or was given, of the settings in a release's manifest."""
    encoder = training.get("encoder", "")
    known = [*CANDIDATES.values(), *DIVERSE_CANDIDATES.values()]
    candidates = [own for own in known if own["encoder"] == encoder]
    names = ["encoder", TIME_GAPS, *(name for own in candidates for name in own)]
    chosen = {name: training[name] for name in names if name in training}
    if encoder in ENCODERS and TIME_GAPS in ENCODERS[encoder].Arguments.model_fields:
        chosen.setdefault(TIME_GAPS, False)  # releases made before 2026-11-29 leave it out
    return chosen


def leaves_open(settings: Mapping[str, Any], preset: PresetName) -> bool:
    """Whether a fit with these settings chooses its method and K."""
    if preset == "diverse":
        return True
    return (
        preset != "paper" and not _NAMED & settings.keys() and settings.get("search_minutes") != 0
    )


def _candidates(settings: Mapping[str, Any], diverse: bool) -> dict[str, FitConfig]:
    configs = {}
    for name, own in (DIVERSE_CANDIDATES if diverse else CANDIDATES).items():
        if any(settings.get(key, value) != value for key, value in own.items()):
            continue
        try:
            configs[name] = read_config(None, {**own, **settings})
        except ConfigError:  # such a setting is not for this method
            continue
    return configs

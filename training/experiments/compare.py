"""Comparison of encoders on one log, with equal tuning and several seeds."""

import json
from collections.abc import Sequence
from typing import Any, get_args

from training.config import ConfigError, FitConfig, read_config
from training.experiments.runner import ExperimentRunner, System
from training.presets import PresetName

# A budget of n trials is the first n: a system's own settings, then other learning rates, which
# matter most.
TRIALS: Sequence[dict[str, Any]] = (
    {},
    {"learning_rate": 0.002},
    {"learning_rate": 0.001},
    {"dropout": 0.5},
)
POP = "pop"


def compare(
    runner: ExperimentRunner,
    encoders: Sequence[str],
    seeds: int,
    trials: int,
    common: dict[str, Any],
    preset: PresetName = "best",
) -> list[System]:
    """Select each encoder's best trial on validation, then train it with each seed.

    An encoder may have its own settings, `re4:recontrast=0;interests=4`, or its own preset,
    `re4:preset=paper`; that text is the system's name. common: settings of all systems.
    Raises ConfigError for an unknown setting.
    """
    systems = []
    for text in encoders:
        config = system_config(text, common, preset)
        if text == POP:
            systems.append(System(POP, [runner.run_popularity(config)]))
            continue
        best = runner.tune(text, config, TRIALS[:trials])
        systems.append(runner.run_seeds(text, best, seeds))
    return systems


def system_config(text: str, common: dict[str, Any], preset: PresetName) -> FitConfig:
    """The settings of a system such as `re4:recontrast=0;interests=4`. Raises ConfigError."""
    name, _, settings = text.partition(":")
    encoder = {} if name == POP else {"encoder": name}
    overrides = dict(parse_setting(part) for part in settings.split(";") if part)
    preset_name = overrides.pop("preset", preset)
    if preset_name not in get_args(PresetName):
        raise ConfigError(f"preset: {preset_name!r}; choose {' or '.join(get_args(PresetName))}")
    return read_config(None, {**common, **encoder, **overrides}, preset_name)


def parse_setting(text: str) -> tuple[str, Any]:
    """Split key=value; the value is parsed as JSON if it is valid JSON, else it is a string.

    Raises ConfigError if there is no =.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{text!r}: not a setting; write key=value")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value

"""Encoders side by side on one log: equal tuning, several seeds, one table."""

import json
from collections.abc import Sequence
from typing import Any, get_args

from training.config import ConfigError, FitConfig, read_config
from training.experiments.runner import ExperimentRunner, System
from training.presets import PresetName

# A budget of n trials is the first n: a system's own settings, then other learning rates, which
# decide most.
TRIALS: Sequence[dict[str, Any]] = (
    {},
    {"learning_rate": 0.002},
    {"learning_rate": 0.001},
    {"dropout": 0.5},
)
POP = "pop"


def compare(
    laboratory: ExperimentRunner,
    encoders: Sequence[str],
    seeds: int,
    trials: int,
    common: dict[str, Any],
    preset: PresetName = "best",
) -> list[System]:
    """Each encoder with the best of the same trials on validation, then trained with each seed.

    An encoder may carry settings of its own, `re4:recontrast=0;interests=4`, or a preset of its
    own, `re4:preset=paper`, and is then named by them. common: settings of all. Raises ConfigError
    for a setting that does not exist.
    """
    systems = []
    for text in encoders:
        config = system_config(text, common, preset)
        if text == POP:
            systems.append(System(POP, [laboratory.popularity(config)]))
            continue
        best = laboratory.tuned(text, config, TRIALS[:trials])
        systems.append(laboratory.system(text, best, seeds))
    return systems


def system_config(text: str, common: dict[str, Any], preset: PresetName) -> FitConfig:
    name, _, settings = text.partition(":")
    encoder = {} if name == POP else {"encoder": name}
    own = dict(setting(part) for part in settings.split(";") if part)
    chosen = own.pop("preset", preset)
    if chosen not in get_args(PresetName):
        raise ConfigError(f"preset: {chosen!r}; choose {' or '.join(get_args(PresetName))}")
    return read_config(None, {**common, **encoder, **own}, chosen)


def setting(text: str) -> tuple[str, Any]:
    """A key and its value, which is JSON where it can be. Raises ConfigError without an =."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{text!r}: not a setting; write key=value")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value

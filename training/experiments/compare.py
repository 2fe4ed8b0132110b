"""Comparison of encoders on one log, with equal tuning and several seeds."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from training.config import ConfigError, FitConfig, read_config
from training.data.log_options import LogOptions
from training.experiments.baselines import BASELINES, popularity_baselines
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


def compare(
    runner: ExperimentRunner,
    encoders: Sequence[str],
    seeds: int,
    trials: int,
    common: dict[str, Any],
    preset: PresetName = "best",
) -> list[System]:
    """Select each encoder's best trial on validation, then train it with each seed.

    Of a baseline the best of as many trials is one run: it has no seed.
    An encoder may have its own settings, `re4:recontrast=0;interests=4`, or its own preset,
    `re4:preset=paper`; that text is the system's name. common: settings of all systems. A trial
    changes no setting that is given. Seeds are counted from the setting `seed`.
    Raises ConfigError for an unknown setting, and if systems read or split the log differently.
    """
    configs = {text: system_config(text, common, preset) for text in encoders}
    _require_same_data(configs)
    systems = []
    for text, config in configs.items():
        own = _own_settings(text)
        if baseline := BASELINES.get(_name(text)):
            options = baseline.options_to_try(own, trials)
            systems.append(runner.run_baseline(text, _name(text), config, options))
            continue
        given = common.keys() | own.keys()
        fair = [trial for trial in TRIALS[:trials] if not trial.keys() & given]
        systems.append(runner.run_seeds(text, runner.tune(text, config, fair), seeds))
    return systems


def with_popularity(
    runner: ExperimentRunner, encoders: Sequence[str], common: dict[str, Any], preset: PresetName
) -> list[str]:
    """The systems and, after them, the popularity baselines that they lack and the log allows."""
    config = system_config(encoders[0], common, preset)
    catalog, _, split, _ = runner.prepare(config)
    baselines = popularity_baselines(split.train, catalog, config)
    return [*encoders, *(name for name in baselines if name not in encoders)]


def system_config(text: str, common: dict[str, Any], preset: PresetName) -> FitConfig:
    """The settings of a system such as `re4:recontrast=0;interests=4`. Raises ConfigError."""
    name, overrides = _name(text), _own_settings(text)
    if baseline := BASELINES.get(name):
        for setting in baseline.own(overrides):
            del overrides[setting]
    if "encoder" in common.keys() | overrides.keys():
        raise ConfigError("encoder: name it in --encoders, not as a setting")
    encoder = {} if name in BASELINES else {"encoder": name}
    preset_name = overrides.pop("preset", preset)
    if preset_name not in get_args(PresetName):
        raise ConfigError(f"preset: {preset_name!r}; choose {' or '.join(get_args(PresetName))}")
    return read_config(None, {**common, **encoder, **overrides}, preset_name)


def _name(text: str) -> str:
    return text.partition(":")[0]


def _own_settings(text: str) -> dict[str, Any]:
    return dict(parse_setting(part) for part in text.partition(":")[2].split(";") if part)


def _require_same_data(configs: Mapping[str, FitConfig]) -> None:
    """Raises ConfigError unless all systems are trained and judged on the same users and items."""
    (first, reference), *others = configs.items()
    for text, config in others:
        for name in LogOptions.model_fields:
            expected, given = getattr(reference, name), getattr(config, name)
            if given != expected:
                raise ConfigError(
                    f"{name} is {given!r} for {text} and {expected!r} for {first}: systems are "
                    f"compared on the same users; give it to all, --set {name}=VALUE, or compare "
                    "them apart"
                )


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

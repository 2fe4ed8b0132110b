"""The settings of a fit. Frozen, unknown keys refused, stored whole in the release manifest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, create_model, model_validator
from pydantic_settings import BaseSettings, TomlConfigSettingsSource

from index.encoders import ENCODERS, read_arguments
from training.data.examples import Positions
from training.data.former_names import FORMER_NAMES
from training.data.log_options import LogOptions
from training.evaluation.metrics import SelectionMetric
from training.models.closed_form import CLOSED_FORM_SETTINGS, has_closed_form
from training.models.device import DeviceOptions
from training.models.model import encoder_arguments
from training.models.objectives import AUXILIARY_LOSSES, MAIN_LOSSES
from training.models.options import ModelOptions
from training.presets import PresetName, preset_of


class ConfigError(ValueError):
    """The settings of a fit are not ones it can run with."""


class FitConfig(ModelOptions, LogOptions, DeviceOptions):
    """One training run. Descriptions are the command line's help."""

    epochs: int = Field(
        30, ge=1, description="maximum number of passes over the examples; linear needs none"
    )
    patience: int = Field(
        3, ge=1, description="epochs without a better validation metric before stopping"
    )
    patience_steps: int = Field(
        400, ge=0, description="steps without a better validation metric, needed besides"
    )
    batch_size: int | None = Field(
        None,
        ge=2,
        description="examples per step; none means a hundredth of an epoch, 64 to 1024",
    )
    positions: Positions = Field(
        "last",
        description="what a history teaches: last, the item after it; all, the item after each of "
        "its positions, which gru4rec, sasrec and transformer learn in one pass",
    )
    learning_rate: float = Field(0.005, gt=0, description="learning rate of Adam")
    item_optimizer: Literal["adam", "adagrad"] = Field(
        "adam",
        exclude_if=lambda name: name == "adam",
        description="optimizer of the item vectors; adagrad updates only the items of a batch, has "
        "half of Adam's state, and can be in shards",
    )
    item_learning_rate: float | None = Field(
        None,
        gt=0,
        exclude_if=lambda rate: rate is None,
        description="learning rate of the item vectors, if their optimizer is their own: adagrad, "
        "or Adam above sparse_update_threshold; none means learning_rate",
    )
    learning_rate_schedule: Literal["constant", "linear"] = Field(
        "constant", description="constant, or falling linearly over `epochs`, to 0 after the last"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="beta1 of Adam")
    beta2: float = Field(0.99, ge=0, lt=1, description="beta2 of Adam")
    weight_decay: float = Field(
        0.0, ge=0, description="L2 of Adam; has no effect on sparsely updated items"
    )
    seed: int = Field(0, ge=0, description="seed of weights, order of examples and negatives")
    selection_metric: SelectionMetric = Field(
        "recall@50", description="validation metric for early stopping and model selection"
    )
    validation_users: int = Field(
        5000, ge=1, description="maximum number of validation users evaluated after an epoch"
    )

    search_minutes: float = Field(
        10.0,
        ge=0,
        description="minutes for choosing the encoder and K, if neither is given; the chosen one "
        "is then trained to its end; 0 takes the first candidate",
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.encoder in ENCODERS:
            selected = self.model_copy(update={"interests": self.interests or 1})
            read_arguments(self.encoder, encoder_arguments(selected, items=1))
        if self.positions == "all":
            self._check_positions()
        elif MAIN_LOSSES[self.model_dump()["objective"]].term.needs_positions:
            raise ValueError("this objective learns several next items: set positions = 'all'")
        if has_closed_form(self):
            self._check_closed_form()
        if self.shard_items:
            self._check_shards()
        if self.epochs <= self.pretrain_epochs:
            raise ValueError(
                f"epochs = {self.epochs} leaves none to choose from after pretrain_epochs = "
                f"{self.pretrain_epochs}"
            )
        return self

    def _check_closed_form(self) -> None:
        for name, value in {**CLOSED_FORM_SETTINGS, **dict.fromkeys(AUXILIARY_LOSSES, 0.0)}.items():
            if (given := getattr(self, name)) != value:
                raise ValueError(
                    f"{name} = {given!r}: {self.encoder} is computed in closed form, and "
                    f"scores by inner products; leave it out, or set {name} = {value!r}"
                )

    def _check_shards(self) -> None:
        objective = self.model_dump()["objective"]
        if has_closed_form(self):
            raise ValueError(
                f"shard_items = true: {self.encoder} is computed from all item vectors"
            )
        if MAIN_LOSSES[objective].term.merge == "partitioned":
            raise ValueError(
                f"shard_items = true: objective = {objective!r} clusters all item vectors together"
            )
        if self.item_optimizer != "adagrad":
            raise ValueError(
                "shard_items = true needs item_optimizer = 'adagrad': no other optimizer of "
                "TorchRec that a fit has runs on a CPU too"
            )

    def _check_positions(self) -> None:
        for name, loss in AUXILIARY_LOSSES.items():
            if loss.term.reads_history and getattr(self, name):
                raise ValueError(f"{name} reads one history an example: set positions = 'last'")


def given_options(config: type[BaseModel]) -> type[BaseModel]:
    """The fields of a config as options of a command line: same names, types, defaults and help.

    Bounds are left out. They hold for the settings from all sources together, not for the options
    alone.
    """
    fields: dict[str, Any] = {
        name: (field.annotation, Field(field.default, description=field.description))
        for name, field in config.model_fields.items()
    }
    return create_model(f"{config.__name__}Options", **fields)


def read_toml(path: Path | None) -> dict[str, Any]:
    """The settings in a file; none without a file. Raises ConfigError if it cannot be read."""
    if path is None:
        return {}
    try:
        if not path.is_file():
            raise FileNotFoundError("no such file")
        return TomlConfigSettingsSource(BaseSettings, path)()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable TOML file ({error})") from error


def read_config(
    path: Path | None, overrides: dict[str, Any], preset: PresetName = "accurate"
) -> FitConfig:
    """The preset of the encoder, overridden by a TOML file's settings, then by `overrides`.

    If the settings allow few epochs, the preset's first stage takes at most half of them.

    Raises ConfigError for an unknown or former key, or a value that is not allowed.
    """
    settings = read_toml(path) | overrides
    refuse_former_names(settings, FORMER_NAMES)
    encoder = settings.get("encoder", FitConfig.model_fields["encoder"].default)
    if encoder not in [*ENCODERS]:
        raise ConfigError(f"encoder = {encoder!r}: choose one of {', '.join(ENCODERS)}")
    defaults, epochs = preset_of(preset, encoder), settings.get("epochs")
    if isinstance(epochs, int) and epochs <= defaults.get("pretrain_epochs", 0):
        defaults = {**defaults, "pretrain_epochs": epochs // 2}
    try:
        return FitConfig.model_validate({**defaults, **settings})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if not key:
            raise ConfigError(first["msg"].removeprefix("Value error, ")) from error
        known = ", ".join(sorted(FitConfig.model_fields))
        hint = f"; known are {known}" if first["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{key} = {first['input']!r}: {first['msg']}{hint}") from error


def refuse_former_names(settings: dict[str, Any], former: Mapping[str, str]) -> None:
    """Raises ConfigError if a setting is given by a former name."""
    for name in settings:
        if name in former:
            raise ConfigError(f"{name}: renamed; use {former[name]}")

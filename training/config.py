"""What a fit can be told. Frozen, unknown keys refused, stored whole in the release manifest."""

import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from index.encoders import ENCODERS
from training.evaluation.protocols import ProtocolName
from training.models.negative_sampling import SamplerName
from training.models.objectives.re4 import AuxiliaryNorm, Contrast
from training.models.objectives.softmax import Selection
from training.presets import PresetName, preset_of


class ConfigError(ValueError):
    """The settings of a fit are not ones it can run with."""


class FitConfig(BaseModel):
    """One training run. Descriptions are the command line's help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # the log
    format: str = Field(
        "auto", description="file format of the log; auto looks at name and content"
    )
    events: tuple[str, ...] = Field((), description="event types to keep; none given keeps all")
    min_weight: float | None = Field(None, description="least weight (rating) to keep")
    min_user_interactions: int = Field(
        5, ge=1, description="users with fewer interactions are left out (k-core)"
    )
    min_item_interactions: int = Field(
        5, ge=1, description="items with fewer interactions are left out (k-core)"
    )
    split: ProtocolName = Field("unseen-users", description="protocol of evaluation")
    test_fraction: float = Field(
        0.1, gt=0, lt=0.5, description="share of users for test, and as many again for validation"
    )
    split_seed: int = Field(0, description="which users are in test and validation")

    # the encoder
    encoder: str = Field("re4", description="model that turns a history into interests")
    interests: int | None = Field(
        8,
        ge=1,
        le=64,
        description="K, interest vectors a user; re4, unless told: 8 or 1, as validation says",
    )
    history: int = Field(20, ge=1, le=1000, description="L, newest items the encoder sees")
    dim: int = Field(64, ge=1, le=1024, description="D, length of a vector")
    hidden: int = Field(256, ge=1, description="width of attention, perceptron or GRU")
    recency: bool = Field(True, description="re4: learnt weight of places; paper has none")
    head: Literal["none", "tanh"] = Field("none", description="re4: output head; paper has none")
    biases: bool = Field(True, description="comirec-sa: biases in the attention; REMI has none")
    iterations: int = Field(3, ge=1, description="comirec-dr, mind: of routing")
    dynamic: bool = Field(False, description="mind: log2(length) interests, at most K")
    layers: int = Field(2, ge=1, description="sasrec: transformer blocks")
    heads: int = Field(2, ge=1, description="sasrec: of attention; they divide D")
    score_temperature: float = Field(
        0.0, ge=0, description="temperature of scores that are cosines; 0 is inner products"
    )

    # the loss
    objective: Literal["softmax", "served-max", "hard-negatives", "target-interest"] = Field(
        "served-max",
        description="main loss: on one interest; on the served maximum; REMI's; TiMiRec's",
    )
    selection: Selection = Field("hard", description="softmax: which interest the target trains")
    inverse_temperature: float = Field(1.0, gt=0, description="T of BaM's selection")
    ihn_beta: float = Field(1.0, ge=0, description="beta of REMI's hard negatives; 0 is plain")
    pretrain_epochs: int = Field(
        0, ge=0, description="target-interest: epochs of stage 1, which are not selected from"
    )
    distil_temperature: float = Field(0.1, gt=0, description="target-interest: of distillation")
    sampler: SamplerName = Field("uniform", description="where negatives come from")
    negatives: int = Field(2000, ge=1, description="sampled negatives, shared by a batch")
    multi_loss: float = Field(0.0, ge=0, description="coefficient of BaM's multi_loss; 0 is off")
    routing_reg_weight: float = Field(
        0.0, ge=0, description="coefficient of REMI's routing regularization; 0 is off"
    )
    recontrast: float = Field(0.0, ge=0, description="coefficient of Re4's re-contrast; 0 is off")
    reattend: float = Field(0.0, ge=0, description="coefficient of Re4's re-attend; 0 is off")
    reconstruct: float = Field(0.0, ge=0, description="coefficient of Re4's re-construct; 0 is off")
    temperature: float = Field(0.02, gt=0, description="of re-contrast")
    gamma: float | None = Field(
        None, gt=0, lt=1, description="attention that makes an item positive; none is 1/length"
    )
    auxiliary_norm: AuxiliaryNorm = Field(
        "positives", description="what re-contrast and re-construct are averaged over"
    )
    recontrast_denominator: Contrast = Field(
        "paper", description="other positives in re-contrast's denominator: not, or as released"
    )
    reconstruct_hidden: int = Field(32, ge=1, description="D_b, width of re-construct's decoder")

    # the optimisation
    epochs: int = Field(30, ge=1, description="passes over the examples, at most")
    patience: int = Field(
        3, ge=1, description="epochs without a better validation metric before stopping"
    )
    patience_steps: int = Field(400, ge=0, description="steps without one that it takes besides")
    batch_size: int | None = Field(
        None, ge=2, description="examples a step; none is a hundredth of an epoch, 64 to 1024"
    )
    learning_rate: float = Field(0.005, gt=0, description="of Adam")
    beta1: float = Field(0.9, ge=0, lt=1, description="of Adam")
    beta2: float = Field(0.99, ge=0, lt=1, description="of Adam")
    weight_decay: float = Field(0.0, ge=0, description="L2 of Adam; not on sparsely updated items")
    item_init_std: float = Field(0.1, gt=0, description="standard deviation of fresh item vectors")
    dropout: float = Field(
        0.3, ge=0, lt=1, description="share of each history vector's entries dropped"
    )
    sparse_above: int = Field(
        100_000, ge=0, description="items above which a step updates only the items it saw"
    )
    seed: int = Field(0, ge=0, description="of weights, order and negatives")
    select_on: Literal[
        "recall@10", "recall@20", "recall@50", "ndcg@5", "ndcg@10", "ndcg@20", "ndcg@50"
    ] = Field("recall@50", description="validation metric that stops and selects")
    validation_users: int = Field(
        5000, ge=1, description="validation users evaluated each epoch, at most"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.encoder == "sasrec" and self.dim % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide dim = {self.dim}")
        if self.epochs <= self.pretrain_epochs:
            raise ValueError(
                f"epochs = {self.epochs} leaves none to choose from after pretrain_epochs = "
                f"{self.pretrain_epochs}"
            )
        return self


def read_toml(path: Path | None) -> dict[str, Any]:
    """The settings of a file, if there is one. Raises ConfigError for one that cannot be read."""
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable TOML file ({error})") from error


def read_config(
    path: Path | None, overrides: dict[str, Any], preset: PresetName = "best"
) -> FitConfig:
    """The preset of the encoder, then a TOML file's settings, then `overrides`.

    Where few epochs are asked for, the preset's first stage takes half of them at most.

    Raises ConfigError for a key that does not exist or a value that is not allowed.
    """
    settings = read_toml(path) | overrides
    encoder = settings.get("encoder", FitConfig.model_fields["encoder"].default)
    if encoder not in [*ENCODERS]:
        raise ConfigError(f"encoder = {encoder!r}: choose one of {', '.join(ENCODERS)}")
    usual, epochs = preset_of(preset, encoder), settings.get("epochs")
    if isinstance(epochs, int) and epochs <= usual.get("pretrain_epochs", 0):
        usual = {**usual, "pretrain_epochs": epochs // 2}
    try:
        return FitConfig.model_validate({**usual, **settings})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if not key:
            raise ConfigError(first["msg"].removeprefix("Value error, ")) from error
        known = ", ".join(sorted(FitConfig.model_fields))
        hint = f"; known are {known}" if first["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{key} = {first['input']!r}: {first['msg']}{hint}") from error

"""The settings of a model: its encoder and losses bring their own, the rest is declared here."""

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from index.encoders import ENCODERS
from index.encoders.arguments import (
    GIVEN_ARGUMENTS,
    Dim,
    HistoryLength,
    ItemBias,
    ScoreTemperature,
    TrainingOnly,
)
from training.models.negative_sampling import SamplerName
from training.models.objectives import AUXILIARY_LOSSES, MAIN_LOSSES
from training.models.objectives.timirec import PretrainEpochs

Fields = dict[str, tuple[Any, Any]]  # type and FieldInfo, as create_model takes them


def _fields(models: Iterable[type[BaseModel]]) -> Fields:
    """The fields of all models; of a name that several declare, the first declaration."""
    fields: Fields = {}
    for model in models:
        for name, field in model.model_fields.items():
            if name not in GIVEN_ARGUMENTS:
                fields.setdefault(name, (field.annotation, field))
    return fields


def encoder_options() -> Fields:
    """The options that the encoders bring."""
    return _fields(encoder.Arguments for encoder in ENCODERS.values())


def loss_options() -> Fields:
    """The options that the losses bring, and which of them a fit has."""
    choices = "; ".join(loss.description for loss in MAIN_LOSSES.values())
    objective = Field("served-max", description=f"main loss: {choices}")
    fields: Fields = {"objective": (Literal[tuple(MAIN_LOSSES)], objective)}
    for name, loss in AUXILIARY_LOSSES.items():
        fields[name] = (float, Field(0.0, ge=0, description=loss.description))
    losses = chain(MAIN_LOSSES.values(), AUXILIARY_LOSSES.values())
    return fields | _fields(loss.term.Arguments for loss in losses)


def model_identity() -> frozenset[str]:
    """The settings that trained weights depend on: a fit from such weights cannot change them."""
    return frozenset(
        {"encoder"}
        | {
            name
            for name, (_, field) in encoder_options().items()
            if TrainingOnly not in field.metadata
        }
    )


class _EncoderOption(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = Field("re4", description="model that turns a history into interests")


if TYPE_CHECKING:
    _RegisteredOptions = _EncoderOption
else:
    _RegisteredOptions = create_model(
        "_RegisteredOptions", __base__=_EncoderOption, **(encoder_options() | loss_options())
    )


class ModelOptions(_RegisteredOptions):
    """What a model is built from. Declared here is what the trainer or the model itself reads."""

    interests: int | None = Field(
        8,
        ge=1,
        le=64,
        description="K, number of interest vectors of a user; unless given, validation selects it, "
        "of a fit with --encoder re4 8 or 1",
    )
    history: HistoryLength
    time_gaps: bool | None = Field(
        None,
        description="transformer: read the time from each event to the next; unless given, a fit "
        "does if the log has Unix times",
    )
    dim: Dim
    score_temperature: ScoreTemperature
    item_bias: ItemBias
    pretrain_epochs: PretrainEpochs
    sampler: SamplerName = Field("uniform", description="sampler of the negatives")
    negatives: int = Field(2000, ge=1, description="number of sampled negatives, shared by a batch")
    dropout: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="share of each history vector's entries dropped in training; sasrec: in its "
        "blocks too",
    )
    item_init_std: float = Field(
        0.1, gt=0, description="standard deviation of the initial item vectors"
    )
    item_init: Literal["random", "co-occurrence"] = Field(
        "random",
        exclude_if=lambda name: name == "random",
        description="initial item vectors: random; or, by co-occurrence, near each other where "
        "items are taken together",
    )
    ease_l2: float = Field(
        300.0, gt=0, description="linear: L2 regularisation of the items' weights"
    )
    ease_items: int = Field(
        10_000,
        ge=1,
        description="linear: most popular items whose weights are solved for together, in 8 bytes "
        "for each pair; vectors of rarer items are projections",
    )
    sparse_update_threshold: int = Field(
        100_000,
        ge=0,
        description="number of items above which a step updates only the items in its batch",
    )

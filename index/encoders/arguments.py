"""The arguments of encoders: what all of them take, and what several share.

A description is the help of the trainer's option of the same name. A bound is checked there, and
when a release is opened.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Former name -> name. Releases made before 2026-11-28 have the former ones in their manifests.
FORMER_ARGUMENTS: Mapping[str, str] = {"cosine": "score_temperature"}
CATALOG_SIZE = "items"
MERGE = "merge"
TIME_GAPS = "time_gaps"  # whether an encoder reads the times of a history
# Arguments that are no options: the data gives the first, the objective the second.
GIVEN_ARGUMENTS = frozenset({CATALOG_SIZE, MERGE})

Merge = Literal["max", "gated", "partitioned"]


class TrainingOnly:
    """Marks an argument that has no effect on a trained encoder: a later fit may change it."""


Dim = Annotated[int, Field(64, ge=1, le=1024, description="D, length of a vector")]
InterestCount = Annotated[
    int, Field(8, ge=1, le=64, description="K, number of interest vectors of a user")
]
HistoryLength = Annotated[
    int, Field(20, ge=1, le=1000, description="L, number of newest items that the encoder reads")
]
Hidden = Annotated[
    int, Field(256, ge=1, description="width of the attention, the perceptron or the GRU")
]
ScoreTemperature = Annotated[
    float, Field(0.0, ge=0, description="temperature of cosine scores; 0 means inner products")
]
Layers = Annotated[
    int, Field(2, ge=1, description="sasrec, transformer: number of transformer blocks")
]
Heads = Annotated[
    int, Field(2, ge=1, description="sasrec, transformer: attention heads; they divide D")
]
BlockDropout = Annotated[
    float,
    TrainingOnly,
    Field(0.2, ge=0, lt=1, description="share of the entries dropped in a block"),
]


LearnedTemperature = Annotated[
    bool, Field(False, description="learn the temperature of cosine scores, from the one given")
]
ItemBias = Annotated[
    bool,
    Field(
        False, description="add a learned b_i to scores, which begins at log of the item's count"
    ),
]


class EncoderArguments(BaseModel):
    """The arguments that every encoder takes.

    A default is what a manifest means that leaves the argument out, so it never changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dim: Dim
    score_temperature: ScoreTemperature
    learned_temperature: LearnedTemperature
    item_bias: ItemBias
    merge: Merge = Field("max", description="how an item's scores with K interests become one")

    @model_validator(mode="after")
    def _cosines_are_there(self) -> Self:
        if not self.score_temperature and (self.learned_temperature or self.merge == "partitioned"):
            needed = "a learned temperature" if self.learned_temperature else "a partition of items"
            raise ValueError(f"{needed} needs cosine scores: set score_temperature above 0")
        return self


class TransformerArguments(EncoderArguments):
    """The arguments that the causal transformers share."""

    history: HistoryLength
    layers: Layers
    heads: Heads
    dropout: BlockDropout

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide dim = {self.dim}")
        return self
